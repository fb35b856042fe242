"""The one file that may import transformers: the reference implementation's numbers, stage by stage.

In:  a checkpoint folder and lists of token ids.
Out: Reference: every stage as one tensor over the real tokens, and every parameter's gradient.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import EnvironmentProblem


@dataclass(frozen=True)
class Reference:
    """stages: embeddings, layers.0 ..., pooled, logits, order, where there are such; texts one after the other.
    gradients: under the names of the file, of `pulled` on what comes out last."""

    stages: dict[str, Tensor]
    gradients: dict[str, Tensor]


def installed() -> bool:
    """Whether the reference implementation can be imported."""
    return importlib.util.find_spec("transformers") is not None


def pulled(*outputs: Tensor) -> Tensor:
    """A scalar that every output moves, each by another amount: what gradients are taken of."""
    return sum(
        (x.flatten() * torch.arange(x.numel(), device=x.device).cos()).sum() / x.numel() ** 0.5
        for x in outputs
    )


def reference(
    folder: Path | str,
    ids: Sequence[Sequence[int]],
    segments: Sequence[Sequence[int]] | None,
    pad_id: int,
    head: str | None = None,
    architecture: str = "",
) -> Reference:
    """Run the reference in float32, eval mode, forward and backward.

    head: the kind of head, or None for the encoder alone; architecture: the class that holds it.
    The texts go in as the padded rectangle that the reference takes; what comes out is cut to the
    real tokens, because padding's own numbers mean nothing.
    """
    if not installed():
        raise EnvironmentProblem(
            "transformers is not installed, so there is nothing to compare with",
            "pip install transformers",
        )
    import transformers

    kind = getattr(transformers, architecture) if head else transformers.AutoModel
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        model = kind.from_pretrained(str(folder), attn_implementation="eager", dtype=torch.float32).eval()
    inputs = rectangle(ids, segments, pad_id)
    if head == "choice":
        inputs = {name: x[None] for name, x in inputs.items()}  # one question, each text an answer
    pooled: list[Tensor] = []
    last = last_layer(model, head)
    if last is not None:  # what it reads, which the reference does not give by itself
        last.register_forward_pre_hook(lambda _, read: pooled.append(read[0]))
    out = model(**inputs, output_hidden_states=True)
    lengths = [len(text) for text in ids]
    count = len(out.hidden_states)
    names = ["embeddings", *(f"layers.{i}" for i in range(model.config.num_hidden_layers))][-count:]
    if head is None:
        outputs = {"hidden": packed(out.last_hidden_state, lengths)}
    else:
        outputs = logits(out, head, lengths)
    pulled(*outputs.values()).backward()
    stages = {name: packed(h, lengths) for name, h in zip(names, out.hidden_states)}
    if getattr(out, "pooler_output", None) is not None:
        pooled.append(out.pooler_output)
    if pooled:
        stages["pooled"] = pooled[0].reshape(len(ids), -1)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    stages |= {name: x for name, x in outputs.items() if name != "hidden"}
    return Reference({name: x.detach() for name, x in stages.items()}, found)


def rectangle(
    ids: Sequence[Sequence[int]], segments: Sequence[Sequence[int]] | None, pad_id: int
) -> dict[str, Tensor]:
    """Padded ids (B, T), mask, and segments where there are any."""
    longest = max(map(len, ids))
    out = torch.zeros((3, len(ids), longest), dtype=torch.int64)
    out[0] = pad_id
    for i, text in enumerate(ids):
        out[0, i, : len(text)] = torch.tensor(text)
        out[1, i, : len(text)] = 1
        if segments is not None:
            out[2, i, : len(text)] = torch.tensor(segments[i])
    found = {"input_ids": out[0], "attention_mask": out[1]}
    return found if segments is None else found | {"token_type_ids": out[2]}


def packed(rows: Tensor, lengths: Sequence[int]) -> Tensor:
    """(B, T, ...) to the real tokens (N, ...)."""
    return torch.cat([row[:n] for row, n in zip(rows.flatten(0, rows.dim() - 3), lengths)])


def last_layer(model: nn.Module, head: str | None) -> nn.Module | None:
    """The layer that makes a whole text's logits, None where there is no such."""
    if head not in ("classification", "multilabel", "regression", "choice"):
        return None
    return getattr(model.classifier, "out_proj", model.classifier)


def logits(out: object, head: str, lengths: Sequence[int]) -> dict[str, Tensor]:
    """The reference's answers in our shapes: (B, C), (B,), or a row for each real token."""
    if head == "span":
        return {"logits": packed(torch.stack([out.start_logits, out.end_logits], -1), lengths)}
    if head == "pretraining":
        order = out.sop_logits if hasattr(out, "sop_logits") else out.seq_relationship_logits
        return {"logits": packed(out.prediction_logits, lengths), "order": order}
    if head in ("tokens", "mlm"):
        return {"logits": packed(out.logits, lengths)}
    if head == "detection":
        return {"logits": packed(out.logits[..., None], lengths)[:, 0]}
    return {"logits": out.logits.flatten() if head in ("choice", "regression") else out.logits}
