"""How our parameters are called in published checkpoints. Data only; read it beside BERT's tree.

A Row says: ours, theirs, shape of ours. One `{}` is the layer number. `part=(i, n)`: ours is the i-th
of n equal slices of theirs along axis 0, joined again when saved. The tables are read both ways: a
file that we save has the published names of today, also where it came with gamma and beta. Theirs
stand without the family's prefix ("bert.", "roberta."), which a file may carry or not; a head's names
start at the file's root, where "@" stands for that prefix.
Shapes use the letters of batch.py, E for the width of the word table and R for relative distances;
each is checked before a byte is copied.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One tensor: our name, theirs, our shape. `part=(i, n)`: ours is slice i of n of theirs, axis 0."""

    ours: str
    theirs: str
    shape: str
    part: tuple[int, int] | None = None


def linear(ours: str, theirs: str, shape: str) -> list[Row]:
    """A linear layer or a LayerNorm: weight and bias."""
    return [
        Row(f"{ours}.weight", f"{theirs}.weight", shape),
        Row(f"{ours}.bias", f"{theirs}.bias", shape.split()[0]),
    ]


def under(prefix: str, rows: list[Row]) -> list[Row]:
    """The same rows for a part of a larger head."""
    return [row._replace(ours=prefix + row.ours) for row in rows]


# --- encoders -------------------------------------------------------------------------------------

WORDS = Row("embeddings.word.weight", "embeddings.word_embeddings.weight", "V E")
POSITIONS = Row("embeddings.position.weight", "embeddings.position_embeddings.weight", "P E")
SEGMENTS = Row("embeddings.segment.weight", "embeddings.token_type_embeddings.weight", "S E")
EMBEDDINGS = [WORDS, POSITIONS, SEGMENTS, *linear("embeddings.norm", "embeddings.LayerNorm", "E")]
WITHOUT_SEGMENTS = [row for row in EMBEDDINGS if row != SEGMENTS]


def layer(query: str, key: str, value: str, out: str, attn_norm: str, up: str, down: str, ffn_norm: str):
    """The rows of one layer, by what its eight parts are called."""
    return [
        *linear("layers.{}.attn.query", query, "D D"),
        *linear("layers.{}.attn.key", key, "D D"),
        *linear("layers.{}.attn.value", value, "D D"),
        *linear("layers.{}.attn.out", out, "D D"),
        *linear("layers.{}.attn_norm", attn_norm, "D"),
        *linear("layers.{}.ffn.up", up, "F D"),
        *linear("layers.{}.ffn.down", down, "D F"),
        *linear("layers.{}.ffn_norm", ffn_norm, "D"),
    ]


BERT_LAYER = layer(
    "encoder.layer.{}.attention.self.query",
    "encoder.layer.{}.attention.self.key",
    "encoder.layer.{}.attention.self.value",
    "encoder.layer.{}.attention.output.dense",
    "encoder.layer.{}.attention.output.LayerNorm",
    "encoder.layer.{}.intermediate.dense",
    "encoder.layer.{}.output.dense",
    "encoder.layer.{}.output.LayerNorm",
)
DISTILBERT_LAYER = layer(
    "transformer.layer.{}.attention.q_lin",
    "transformer.layer.{}.attention.k_lin",
    "transformer.layer.{}.attention.v_lin",
    "transformer.layer.{}.attention.out_lin",
    "transformer.layer.{}.sa_layer_norm",
    "transformer.layer.{}.ffn.lin1",
    "transformer.layer.{}.ffn.lin2",
    "transformer.layer.{}.output_layer_norm",
)
MPNET_LAYER = layer(
    "encoder.layer.{}.attention.attn.q",
    "encoder.layer.{}.attention.attn.k",
    "encoder.layer.{}.attention.attn.v",
    "encoder.layer.{}.attention.attn.o",
    "encoder.layer.{}.attention.LayerNorm",
    "encoder.layer.{}.intermediate.dense",
    "encoder.layer.{}.output.dense",
    "encoder.layer.{}.output.LayerNorm",
)
ALBERT_LAYER = layer(
    "encoder.albert_layer_groups.{}.albert_layers.0.attention.query",
    "encoder.albert_layer_groups.{}.albert_layers.0.attention.key",
    "encoder.albert_layer_groups.{}.albert_layers.0.attention.value",
    "encoder.albert_layer_groups.{}.albert_layers.0.attention.dense",
    "encoder.albert_layer_groups.{}.albert_layers.0.attention.LayerNorm",
    "encoder.albert_layer_groups.{}.albert_layers.0.ffn",
    "encoder.albert_layer_groups.{}.albert_layers.0.ffn_output",
    "encoder.albert_layer_groups.{}.albert_layers.0.full_layer_layer_norm",
)
# No biases; query, key and value are one matrix there, and so are what goes up and its gate.
MODERNBERT_LAYER = [
    Row("layers.{}.attn.query.weight", "layers.{}.attn.Wqkv.weight", "D D", (0, 3)),
    Row("layers.{}.attn.key.weight", "layers.{}.attn.Wqkv.weight", "D D", (1, 3)),
    Row("layers.{}.attn.value.weight", "layers.{}.attn.Wqkv.weight", "D D", (2, 3)),
    Row("layers.{}.attn.out.weight", "layers.{}.attn.Wo.weight", "D D"),
    Row("layers.{}.ffn_norm.weight", "layers.{}.mlp_norm.weight", "D"),
    Row("layers.{}.ffn.up.weight", "layers.{}.mlp.Wi.weight", "F D", (0, 2)),
    Row("layers.{}.ffn.gate.weight", "layers.{}.mlp.Wi.weight", "F D", (1, 2)),
    Row("layers.{}.ffn.down.weight", "layers.{}.mlp.Wo.weight", "D F"),
]
# The first layer reads what the embeddings have normalised already.
MODERNBERT_LATER = [Row("layers.{}.attn_norm.weight", "layers.{}.attn_norm.weight", "D")]
MODERNBERT_WORDS = Row("embeddings.word.weight", "embeddings.tok_embeddings.weight", "V E")

# --- heads ----------------------------------------------------------------------------------------

BERT_POOLER = linear("read.dense", "@pooler.dense", "D D")
ALBERT_POOLER = linear("read.dense", "@pooler", "D D")
CLASSIFIER = linear("out", "classifier", "C D")
ONE_SCORE = linear("out", "classifier", "1 D")  # of a choice
SPAN = linear("out", "qa_outputs", "2 D")
BERT_NSP = [*BERT_POOLER, *linear("out", "cls.seq_relationship", "2 D")]
ALBERT_SOP = [*ALBERT_POOLER, *linear("out", "sop_classifier.classifier", "2 D")]
OWN_DENSE = [  # of its own, where BERT has the pooler
    *linear("read.dense", "classifier.dense", "D D"),
    *linear("out", "classifier.out_proj", "C D"),
]


def masked(dense: str, norm: str, decoder: str, bias: str) -> list[Row]:
    """A masked-language head: dense, LayerNorm, and the word table read backwards."""
    return [
        *linear("read.dense", dense, "E D"),
        *linear("read.norm", norm, "E"),
        Row("out.weight", decoder, "V E"),
        Row("out.bias", bias, "V"),
    ]


BERT_MLM = masked(
    "cls.predictions.transform.dense",
    "cls.predictions.transform.LayerNorm",
    "cls.predictions.decoder.weight",
    "cls.predictions.bias",
)
ROBERTA_MLM = masked("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder.weight", "lm_head.bias")
ALBERT_MLM = masked(
    "predictions.dense", "predictions.LayerNorm", "predictions.decoder.weight", "predictions.bias"
)
BERT_HEADS = {
    "text": [*BERT_POOLER, *CLASSIFIER],
    "choice": [*BERT_POOLER, *ONE_SCORE],
    "tokens": CLASSIFIER,
    "span": SPAN,
    "mlm": BERT_MLM,
    "nsp": BERT_NSP,
    "pretraining": [*under("words.", BERT_MLM), *under("order.", BERT_NSP)],
}
ROBERTA_HEADS = {
    "text": OWN_DENSE,
    "choice": [*BERT_POOLER, *ONE_SCORE],
    "tokens": CLASSIFIER,
    "span": SPAN,
    "mlm": ROBERTA_MLM,
}
DISTILBERT_DENSE = linear("read.dense", "pre_classifier", "D D")
DISTILBERT_HEADS = {
    "text": [*DISTILBERT_DENSE, *CLASSIFIER],
    "choice": [*DISTILBERT_DENSE, *ONE_SCORE],
    "tokens": CLASSIFIER,
    "span": SPAN,
    "mlm": masked("vocab_transform", "vocab_layer_norm", "vocab_projector.weight", "vocab_projector.bias"),
}
ELECTRA_HEADS = {
    "text": OWN_DENSE,
    "choice": [*linear("read.dense", "sequence_summary.summary", "D D"), *ONE_SCORE],
    "tokens": CLASSIFIER,
    "span": SPAN,
    "mlm": masked(
        "generator_predictions.dense",
        "generator_predictions.LayerNorm",
        "generator_lm_head.weight",
        "generator_lm_head.bias",
    ),
    "detection": [
        *linear("read.dense", "discriminator_predictions.dense", "D D"),
        *linear("out", "discriminator_predictions.dense_prediction", "1 D"),
    ],
}
ALBERT_HEADS = {
    "text": [*ALBERT_POOLER, *CLASSIFIER],
    "choice": [*ALBERT_POOLER, *ONE_SCORE],
    "tokens": CLASSIFIER,
    "span": SPAN,
    "mlm": ALBERT_MLM,
    "pretraining": [*under("words.", ALBERT_MLM), *under("order.", ALBERT_SOP)],
}
MODERNBERT_READ = [
    Row("read.dense.weight", "head.dense.weight", "D D"),
    Row("read.norm.weight", "head.norm.weight", "D"),
]
MODERNBERT_HEADS = {
    "text": [*MODERNBERT_READ, *CLASSIFIER],
    "choice": [*MODERNBERT_READ, *ONE_SCORE],
    "tokens": [*MODERNBERT_READ, *CLASSIFIER],
    "span": [*MODERNBERT_READ, *linear("out", "classifier", "2 D")],
    "mlm": [
        *MODERNBERT_READ,
        Row("out.weight", "decoder.weight", "V E"),
        Row("out.bias", "decoder.bias", "V"),
    ],
}

# --- families -------------------------------------------------------------------------------------


class Names(NamedTuple):
    """A family's tables: its prefix, the rows of the encoder, of one layer, and of each head."""

    prefix: str
    encoder: list[Row]
    layer: list[Row]
    heads: dict[str, list[Row]]  # by families.reads(kind)
    later: list[Row] = []  # of every layer but the first

    @property
    def carried(self) -> set[str]:
        """What may stand in a file beside what is asked for: other heads of the family, the counter."""
        rows = {row.theirs for head in self.heads.values() for row in head}
        return rows | {name for name, target in TIED.items() if name in rows or target in rows} | {COUNTER}


# A counter 0, 1, 2 ... that older files store; the only whole numbers in a checkpoint.
COUNTER = "@embeddings.position_ids"

ROBERTA = Names("roberta.", EMBEDDINGS, BERT_LAYER, ROBERTA_HEADS)
NAMES = {
    "bert": Names("bert.", EMBEDDINGS, BERT_LAYER, BERT_HEADS),
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "distilbert": Names("distilbert.", WITHOUT_SEGMENTS, DISTILBERT_LAYER, DISTILBERT_HEADS),
    "electra": Names(
        "electra.",
        # The projection is absent where both widths are equal (see checkpoint.rows_for).
        [*EMBEDDINGS, *linear("embeddings.project", "embeddings_project", "D E")],
        BERT_LAYER,
        ELECTRA_HEADS,
    ),
    "mpnet": Names(
        "mpnet.",
        [*WITHOUT_SEGMENTS, Row("distance.weight", "encoder.relative_attention_bias.weight", "R H")],
        MPNET_LAYER,
        ROBERTA_HEADS,
    ),
    "albert": Names(
        "albert.",
        [*EMBEDDINGS, *linear("embeddings.project", "encoder.embedding_hidden_mapping_in", "D E")],
        ALBERT_LAYER,
        ALBERT_HEADS,
    ),
    "modernbert": Names(
        "model.",
        [
            MODERNBERT_WORDS,
            Row("embeddings.norm.weight", "embeddings.norm.weight", "E"),
            Row("final_norm.weight", "final_norm.weight", "D"),
        ],
        MODERNBERT_LAYER,
        MODERNBERT_HEADS,
        MODERNBERT_LATER,
    ),
}

# Letter of a shape -> the size's name in EncoderConfig, whose key config.json has.
LETTERS = {
    "V": "vocab_size",
    "D": "hidden_width",
    "E": "embedding_width",
    "H": "num_heads",
    "F": "ffn_width",
    "P": "num_positions",
    "S": "num_segments",
    "R": "relative_buckets",
}

# Wrappers that tools leave in front of every name; one is taken off.
WRAPPERS = ("module.", "_orig_mod.", "model.", "0.auto_model.", "auto_model.")

# TensorFlow's names of LayerNorm's two vectors, still in the first published BERT files.
ALIASES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

# The same tensor under two names: theirs -> the one it repeats. A file may leave the repetition out.
TIED = {
    "cls.predictions.decoder.weight": "@embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "lm_head.decoder.weight": "@embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
    "vocab_projector.weight": "@embeddings.word_embeddings.weight",
    "generator_lm_head.weight": "@embeddings.word_embeddings.weight",
    "predictions.decoder.weight": "@embeddings.word_embeddings.weight",
    "predictions.decoder.bias": "predictions.bias",
    "decoder.weight": "@embeddings.tok_embeddings.weight",
}
