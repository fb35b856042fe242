"""Tiny random models of every family and head, made by the reference, and its answers on ragged batches.

Sizes are odd and pairwise different wherever a mix-up could hide: V=101, D=28, E=13, H=4 (K=7; ModernBERT
K=6 or 8, which must be even), F=37, L=3, P=47. Biases and norms are moved off 0 and 1, which would
hide a swap.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..questions import CLASSES, LENGTHS, texts

SIZES = {
    "vocab_size": 101,
    "hidden_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 47,
}
FAIRSEQ = {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
MODERN = {
    "vocab_size": 101,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 47,
    "local_attention": 6,  # 3 to each side: shorter than the texts
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
}
# family -> (its configuration class, what it is made with)
FAMILIES = {
    "bert": ("Bert", {**SIZES, "type_vocab_size": 2}),
    "roberta": ("Roberta", {**SIZES, **FAIRSEQ}),
    "xlm-roberta": ("XLMRoberta", {**SIZES, **FAIRSEQ}),
    "camembert": ("Camembert", {**SIZES, **FAIRSEQ}),
    "distilbert": (
        "DistilBert",
        {
            "vocab_size": 101,
            "dim": 28,
            "n_layers": 3,
            "n_heads": 4,
            "hidden_dim": 37,
            "max_position_embeddings": 47,
        },
    ),
    "electra": ("Electra", {**SIZES, "embedding_size": 13, "type_vocab_size": 2}),
    "mpnet": ("MPNet", {**SIZES, "layer_norm_eps": 1e-5}),
    "albert": ("Albert", {**SIZES, "embedding_size": 13, "num_hidden_groups": 2, "hidden_act": "gelu_new"}),
    "modernbert": ("ModernBert", MODERN),
}
HEADS = {
    "": "Model",
    "classification": "ForSequenceClassification",
    "multilabel": "ForSequenceClassification",
    "regression": "ForSequenceClassification",
    "tokens": "ForTokenClassification",
    "choice": "ForMultipleChoice",
    "span": "ForQuestionAnswering",
    "mlm": "ForMaskedLM",
    "nsp": "ForNextSentencePrediction",
    "pretraining": "ForPreTraining",
    "detection": "ForPreTraining",
}
# Not every family publishes every head.
ONLY = {"nsp": {"bert"}, "pretraining": {"bert", "albert"}, "detection": {"electra"}}
PAIRS = [(family, head) for head in HEADS for family in FAMILIES if family in ONLY.get(head, FAMILIES)]
PROBLEMS = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}


def attention(family: str) -> str:
    """Which of its own kernels computes in the model's precision.

    ModernBERT's eager softmax is float32 also in a float64 model, and NaN where a window holds padding only.
    """
    return "sdpa" if family == "modernbert" else "eager"


@contextlib.contextmanager
def own_precision() -> Iterator[None]:
    """ModernBERT turns queries in float32 also in a float64 model; here it doesn't, so that it is a measure."""
    from transformers.models.modernbert import modeling_modernbert as theirs

    def turned(q, k, cos, sin, unsqueeze_dim=1):
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return tuple(x * cos + theirs.rotate_half(x) * sin for x in (q, k))

    before, theirs.apply_rotary_pos_emb = theirs.apply_rotary_pos_emb, turned
    try:
        yield
    finally:
        theirs.apply_rotary_pos_emb = before


def make(family: str, head: str, seed: int = 3) -> object:
    """A tiny model in eval mode with random weights."""
    import transformers

    stem, sizes = FAMILIES[family]
    extra = {"num_labels": CLASSES[head]} if head in CLASSES else {}
    extra |= {"problem_type": PROBLEMS[head]} if head in PROBLEMS else {}
    torch.manual_seed(seed)
    settings = getattr(transformers, stem + "Config")(**sizes, **extra)
    settings._attn_implementation = attention(family)
    model = getattr(transformers, stem + HEADS[head])(settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def save(family: str, head: str, folder: Path, **options: object) -> object:
    """`make`, written to a folder by the reference; returns the model."""
    model = make(family, head)
    model.save_pretrained(folder, **options)
    return model


def read(family: str, head: str, folder: Path) -> object:
    """A folder loaded by the reference, in eval mode. Fails where a tensor is missing or not used."""
    import transformers

    kind = getattr(transformers, FAMILIES[family][0] + HEADS[head])
    options = {"output_loading_info": True, "attn_implementation": attention(family)}
    model, told = kind.from_pretrained(str(folder), **options)
    assert not any(told.values()), told
    return model.eval()


def batch(config: object, lengths: tuple[int, ...] = LENGTHS) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids and segments of random texts; two segments where the family has them."""
    return texts(getattr(config, "type_vocab_size", 0) > 1, lengths)


def rectangle(ids: list[list[int]], segments: list[list[int]], config: object) -> dict[str, Tensor]:
    """What the reference takes: padded ids, mask, and segments where the family has them."""
    longest = max(map(len, ids))
    out = torch.zeros((3, len(ids), longest), dtype=torch.int64)
    out[0] = config.pad_token_id
    for i, text in enumerate(ids):
        out[0, i, : len(text)] = torch.tensor(text)
        out[1, i, : len(text)] = 1
        out[2, i, : len(text)] = torch.tensor(segments[i])
    names = {"input_ids": out[0], "attention_mask": out[1]}
    return names | ({"token_type_ids": out[2]} if getattr(config, "type_vocab_size", 0) else {})


def answers(
    model: object, head: str, ids: list[list[int]], segments: list[list[int]], **options: object
) -> object:
    """The reference's output object on these texts; of a choice, two texts make a question."""
    inputs = rectangle(ids, segments, model.config)
    if head == "choice":
        inputs = {name: x.unflatten(0, (-1, 2)) for name, x in inputs.items()}
    return model(**inputs, **options)


def logits_of(out: object, head: str, ids: list[list[int]]) -> Tensor | tuple[Tensor, Tensor]:
    """The reference's logits in our shapes: (B, C), (B,), or one row a real token."""

    def packed(rows: Tensor) -> Tensor:
        return torch.cat([row[: len(text)] for row, text in zip(rows, ids)])

    if head == "span":
        return packed(torch.stack([out.start_logits, out.end_logits], -1))
    if head == "pretraining":
        order = out.sop_logits if hasattr(out, "sop_logits") else out.seq_relationship_logits
        return packed(out.prediction_logits), order
    if head in ("tokens", "mlm", "detection"):
        return packed(out.logits)
    if head == "choice":
        return out.logits.flatten()
    return out.logits.squeeze(-1) if head == "regression" else out.logits
