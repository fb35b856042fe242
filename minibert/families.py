"""What differs between the families of encoders: one table, read by config, encoder and heads.

A family is a row of facts, never a subclass: how its config.json spells our sizes, what it implies
without saying it, and what stands between hidden states and the last layer of each head. How its
tensors are called stands in names.py. Data only.

    bert          Devlin et al. 2019
    roberta       Liu et al. 2019: positions count from pad + 1, one segment, heads of its own
    xlm-roberta   Conneau et al. 2020: RoBERTa on a hundred languages
    camembert     Martin et al. 2020: RoBERTa in French
    distilbert    Sanh et al. 2019: half the layers, no segments, no pooler
    electra       Clark et al. 2020: narrow embeddings widened by a projection; tells replaced words
    mpnet         Song et al. 2020: a bias by distance on every score
    albert        Lan et al. 2020: one block walked many times, narrow embeddings
    modernbert    Warner et al. 2024: pre-norm, rotary positions, gated feed-forward, local attention
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

# ours -> the key in config.json, as BERT spells it
KEYS = {
    "vocab_size": "vocab_size",
    "hidden_width": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "ffn_width": "intermediate_size",
    "num_positions": "max_position_embeddings",
    "num_segments": "type_vocab_size",
    "norm_eps": "layer_norm_eps",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "pad_id": "pad_token_id",
    "head_dropout": "classifier_dropout",
    "init_std": "initializer_range",
}
# ... and as others do; None: the family has no such thing
DISTILBERT_KEYS = KEYS | {
    "hidden_width": "dim",
    "num_layers": "n_layers",
    "num_heads": "n_heads",
    "ffn_width": "hidden_dim",
    "num_segments": None,
    "norm_eps": None,
    "activation": "activation",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "head_dropout": "seq_classif_dropout",
}
ELECTRA_KEYS = KEYS | {"embedding_width": "embedding_size"}
MPNET_KEYS = KEYS | {"num_segments": None, "relative_buckets": "relative_attention_num_buckets"}
ALBERT_KEYS = KEYS | {
    "embedding_width": "embedding_size",
    "num_blocks": "num_hidden_groups",
    "head_dropout": "classifier_dropout_prob",
}
MODERNBERT_KEYS = KEYS | {
    "num_segments": None,
    "norm_eps": "norm_eps",
    "activation": "hidden_activation",
    "dropout": "embedding_dropout",
    "attention_dropout": "attention_dropout",
    "ffn_dropout": "mlp_dropout",
    "head_dropout": "classifier_dropout",
}


class Read(NamedTuple):
    """What a head does before its last layer: dropout, dense, activation, norm, dropout; all optional."""

    activation: str = ""  # of a dense layer, which is there if this is; "own": the encoder's
    norm: bool = False  # LayerNorm behind the activation
    narrow: bool = False  # dense gives the embeddings' width, so that words can be looked up backwards
    before: bool = False  # dropout in front, too
    after: str = "head"  # whose share of dropout stands behind: head, hidden, or "" for none


# What is read for a text, for each token, for a span, for a word that is hidden ("mlm"), ...
BERT_HEADS = {
    "text": Read("tanh"),  # the pooler, which pre-training made
    "choice": Read("tanh"),
    "tokens": Read(),
    "span": Read(after=""),
    "mlm": Read("own", norm=True, narrow=True, after=""),
    "nsp": Read("tanh", after=""),
    "pretraining": Read(),
}
ROBERTA_HEADS = {
    "text": Read("tanh", before=True),
    "choice": Read("tanh", after="hidden"),  # the pooler; its dropout is the encoder's
    "tokens": Read(),
    "span": Read(after=""),
    "mlm": Read("gelu", norm=True, narrow=True, after=""),
}
DISTILBERT_HEADS = {
    "text": Read("relu"),
    "choice": Read("relu"),
    "tokens": Read(after="hidden"),
    "span": Read(after="hidden"),  # qa_dropout, which is 0.1 as dropout is in what is published
    "mlm": Read("own", norm=True, narrow=True, after=""),
}
ELECTRA_HEADS = {
    "text": Read("gelu", before=True),
    "choice": Read("gelu"),
    "tokens": Read(),
    "span": Read(after=""),
    "mlm": Read("gelu", norm=True, narrow=True, after=""),  # of the generator
    "detection": Read("own", after=""),  # of the discriminator
}
MPNET_HEADS = {
    "text": Read("tanh", before=True, after="hidden"),
    "choice": Read("tanh", after="hidden"),
    "tokens": Read(after="hidden"),
    "span": Read(after=""),
    "mlm": Read("gelu", norm=True, narrow=True, after=""),
}
ALBERT_HEADS = {
    "text": Read("tanh"),
    "choice": Read("tanh"),
    "tokens": Read(),
    "span": Read(after=""),
    "mlm": Read("own", norm=True, narrow=True, after=""),
    "sop": Read("tanh"),  # whether two pieces of text stand in their order
    "pretraining": Read(),
}
MODERNBERT_HEADS = {
    "text": Read("gelu", norm=True),
    "choice": Read("gelu", norm=True),
    "tokens": Read("gelu", norm=True),
    "span": Read("gelu", norm=True),
    "mlm": Read("gelu", norm=True, narrow=True, after=""),
}

# The name in "architectures" is the family's stem and one of these.
ARCHITECTURES = {
    "text": "ForSequenceClassification",
    "tokens": "ForTokenClassification",
    "choice": "ForMultipleChoice",
    "span": "ForQuestionAnswering",
    "mlm": "ForMaskedLM",
    "nsp": "ForNextSentencePrediction",
    "pretraining": "ForPreTraining",
    "detection": "ForPreTraining",
}

# ... and what a head of whole texts is for: our kind -> "problem_type"
PROBLEMS = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True)
class Family:
    """The facts of one family."""

    stem: str  # of its class names in "architectures"
    heads: dict[str, Read]
    keys: dict[str, str | None] = field(default_factory=lambda: KEYS)
    implied: dict[str, Any] = field(default_factory=dict)  # ours -> what no key says
    only: dict[str, tuple] = field(default_factory=dict)  # keys whose other values we don't do
    positions_after_pad: bool = False  # fairseq numbers positions from pad + 1 (`make_positions`)
    projected: bool = False  # narrow embeddings are always widened, even where the widths are equal
    added: tuple[str, str] = ("dropout", "dropout")  # share dropped of what attention and feed-forward add
    pre_norm: bool = False  # LayerNorm in front of each sub-layer, and one at the end
    gated: bool = False  # feed-forward: down(act(up(h)) * gate(h))
    biases: bool = True  # of linear layers and LayerNorms
    poolings: tuple[str, ...] = ()  # what its heads of whole texts may read, where config.json can say it

    @property
    def architectures(self) -> dict[str, str]:
        """Name in "architectures" -> line of `heads`, "" for none."""
        lines = {self.stem + word: line for line, word in ARCHITECTURES.items() if line in self.heads}
        return {self.stem + "Model": "", **lines}


def reads(kind: str) -> str:
    """Which line of a family's heads a kind of head follows: three kinds say something of a whole text."""
    return "text" if kind in PROBLEMS else kind


FAMILIES = {
    "bert": Family("Bert", BERT_HEADS),
    "roberta": Family("Roberta", ROBERTA_HEADS, positions_after_pad=True),
    "xlm-roberta": Family("XLMRoberta", ROBERTA_HEADS, positions_after_pad=True),
    "camembert": Family("Camembert", ROBERTA_HEADS, positions_after_pad=True),
    "distilbert": Family(
        "DistilBert",
        DISTILBERT_HEADS,
        DISTILBERT_KEYS,
        implied={"num_segments": 0, "norm_eps": 1e-12},
        added=("", "dropout"),
    ),
    "electra": Family(
        "Electra",
        ELECTRA_HEADS,
        ELECTRA_KEYS,
        only={"summary_type": ("first",), "summary_use_proj": (True,), "summary_activation": ("gelu",)},
    ),
    "mpnet": Family(
        "MPNet",
        MPNET_HEADS,
        MPNET_KEYS,
        implied={"num_segments": 0},
        only={"relative_attention_num_buckets": (32,), "pad_token_id": (1,)},  # fixed in its code
        positions_after_pad=True,
    ),
    "albert": Family(
        "Albert",
        ALBERT_HEADS,
        ALBERT_KEYS,
        only={"inner_group_num": (1,), "net_structure_type": (0,), "num_memory_blocks": (0,)},
        projected=True,
        added=("dropout", ""),
    ),
    "modernbert": Family(
        "ModernBert",
        MODERNBERT_HEADS,
        MODERNBERT_KEYS,
        implied={"num_segments": 0},
        only={
            "attention_bias": (False,),
            "mlp_bias": (False,),
            "norm_bias": (False,),
            "classifier_bias": (False,),
            "decoder_bias": (True,),
            "classifier_activation": ("gelu",),
            "classifier_pooling": ("cls", "mean"),
        },
        added=("attention_dropout", ""),
        pre_norm=True,
        gated=True,
        biases=False,
        poolings=("cls", "mean"),
    ),
}
