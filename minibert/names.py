"""How our parameters are called in published checkpoints. Data only; read it beside BERT's tree.

A Row says: ours, theirs, shape. One `{}` is the layer number. The tables are read both ways: a file
that we save has the published names of today, also where it came with gamma and beta. Theirs stand without the family's prefix ("bert.",
"roberta."), which a file may carry or not.
Shapes use the letters of batch.py; each is checked before a byte is copied.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One tensor: our name, theirs, its shape. `part=(i, n)`: ours is slice i of n of theirs, axis 0."""

    ours: str
    theirs: str
    shape: str
    part: tuple[int, int] | None = None


EMBEDDINGS = [
    Row("embeddings.word.weight", "embeddings.word_embeddings.weight", "V D"),
    Row("embeddings.position.weight", "embeddings.position_embeddings.weight", "P D"),
    Row("embeddings.segment.weight", "embeddings.token_type_embeddings.weight", "S D"),
    Row("embeddings.norm.weight", "embeddings.LayerNorm.weight", "D"),
    Row("embeddings.norm.bias", "embeddings.LayerNorm.bias", "D"),
]
LAYER = [
    Row("layers.{}.attn.query.weight", "encoder.layer.{}.attention.self.query.weight", "D D"),
    Row("layers.{}.attn.query.bias", "encoder.layer.{}.attention.self.query.bias", "D"),
    Row("layers.{}.attn.key.weight", "encoder.layer.{}.attention.self.key.weight", "D D"),
    Row("layers.{}.attn.key.bias", "encoder.layer.{}.attention.self.key.bias", "D"),
    Row("layers.{}.attn.value.weight", "encoder.layer.{}.attention.self.value.weight", "D D"),
    Row("layers.{}.attn.value.bias", "encoder.layer.{}.attention.self.value.bias", "D"),
    Row("layers.{}.attn.out.weight", "encoder.layer.{}.attention.output.dense.weight", "D D"),
    Row("layers.{}.attn.out.bias", "encoder.layer.{}.attention.output.dense.bias", "D"),
    Row("layers.{}.attn_norm.weight", "encoder.layer.{}.attention.output.LayerNorm.weight", "D"),
    Row("layers.{}.attn_norm.bias", "encoder.layer.{}.attention.output.LayerNorm.bias", "D"),
    Row("layers.{}.ffn.up.weight", "encoder.layer.{}.intermediate.dense.weight", "F D"),
    Row("layers.{}.ffn.up.bias", "encoder.layer.{}.intermediate.dense.bias", "F"),
    Row("layers.{}.ffn.down.weight", "encoder.layer.{}.output.dense.weight", "D F"),
    Row("layers.{}.ffn.down.bias", "encoder.layer.{}.output.dense.bias", "D"),
    Row("layers.{}.ffn_norm.weight", "encoder.layer.{}.output.LayerNorm.weight", "D"),
    Row("layers.{}.ffn_norm.bias", "encoder.layer.{}.output.LayerNorm.bias", "D"),
]

# A head's names start at the file's root; "@" stands for the family's prefix.
# BERT's classifier reads the pooler, which its pre-training made; RoBERTa's has a layer of its own.
BERT_CLASSIFIER = [
    Row("read.dense.weight", "@pooler.dense.weight", "D D"),
    Row("read.dense.bias", "@pooler.dense.bias", "D"),
    Row("out.weight", "classifier.weight", "C D"),
    Row("out.bias", "classifier.bias", "C"),
]
ROBERTA_CLASSIFIER = [
    Row("read.dense.weight", "classifier.dense.weight", "D D"),
    Row("read.dense.bias", "classifier.dense.bias", "D"),
    Row("out.weight", "classifier.out_proj.weight", "C D"),
    Row("out.bias", "classifier.out_proj.bias", "C"),
]


class Names(NamedTuple):
    """A family's tables: its prefix, the rows of the encoder, of one layer, and of each head."""

    prefix: str
    encoder: list[Row]
    layer: list[Row]
    heads: dict[str, list[Row]]


NAMES = {
    "bert": Names(
        "bert.", EMBEDDINGS, LAYER, {"classification": BERT_CLASSIFIER, "regression": BERT_CLASSIFIER}
    ),
    "roberta": Names(
        "roberta.",
        EMBEDDINGS,
        LAYER,
        {"classification": ROBERTA_CLASSIFIER, "regression": ROBERTA_CLASSIFIER},
    ),
}

# Letter of a shape -> the key of config.json that says how large it is.
LETTERS = {
    "V": "vocab_size",
    "D": "hidden_size",
    "F": "intermediate_size",
    "P": "max_position_embeddings",
    "S": "type_vocab_size",
    "C": "number of labels",
}

# Wrappers that tools leave in front of every name; one is taken off.
WRAPPERS = ("module.", "_orig_mod.", "model.", "0.auto_model.", "auto_model.")

# TensorFlow's names of LayerNorm's two vectors, still in the first published BERT files.
ALIASES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

# A counter 0, 1, 2 ... that older files store; the only whole numbers in a checkpoint.
COUNTER = "embeddings.position_ids"

# What may stand in a file beside the encoder, by the start of the name: other heads, the counter.
# Carried along and saved again, never used.
CARRIED = ("pooler.", "cls.", "lm_head.", "classifier.", "qa_outputs.", COUNTER)

# The same tensor under two names: theirs -> the one it repeats.
TIED = {
    "cls.predictions.decoder.weight": "@embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "lm_head.decoder.weight": "@embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
}
