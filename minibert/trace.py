"""Every intermediate result of a forward pass, by name, read off a plain call.

In:  an Encoder and a PackedBatch.   Out: Trace, a mapping from names to tensors:

    embeddings.{word,position,segment,sum,normed}                                       (N, D)
    layers.{i}.{query,key,value,context}                                             (N, H, K)
    layers.{i}.{scores,probs}                                 a tuple, one (H, n, n) for each text
    layers.{i}.{attn_out,attn_normed,ffn_out,ffn_normed}                                (N, D)
    layers.{i}.{ffn_up,ffn_act}                                                         (N, F)

The encoder's code knows nothing of this: forward hooks note what goes in and comes out of its
parts, so a traced value is the very tensor that a plain call computes. Scores and probabilities,
which fused kernels never hold, are computed beside it from the same q and k by the formula of
kernels/reference.py; in training they are those before dropout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from .batch import Layout, PackedBatch
from .errors import nearest
from .kernels.reference import probabilities, scores

# name in the trace -> (part of the module, what is noted: what goes in or what comes out)
EMBEDDINGS = {
    "word": ("word", "out"),
    "position": ("position", "out"),
    "segment": ("segment", "out"),
    "sum": ("norm", "in"),
    "normed": ("norm", "out"),
}
BLOCK = {
    "query": ("attn.query", "out"),
    "key": ("attn.key", "out"),
    "value": ("attn.value", "out"),
    "context": ("attn.out", "in"),
    "attn_out": ("attn.out", "out"),
    "attn_normed": ("attn_norm", "out"),
    "ffn_up": ("ffn.up", "out"),
    "ffn_act": ("ffn.down", "in"),
    "ffn_out": ("ffn.down", "out"),
    "ffn_normed": ("ffn_norm", "out"),
}
BY_HEAD = ("query", "key", "value", "context")


@dataclass(frozen=True, eq=False)
class Trace(Mapping[str, Tensor | tuple[Tensor, ...]]):
    """Names to tensors in the order of computation; `output` is the encoder's (N, D)."""

    tensors: dict[str, Tensor | tuple[Tensor, ...]]
    layout: Layout
    output: Tensor = field(repr=False)

    def __getitem__(self, name: str) -> Tensor | tuple[Tensor, ...]:
        if name not in self.tensors:
            raise KeyError(f"the trace has no {name!r}{nearest(name, self.tensors)}")
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def record(encoder: nn.Module, batch: PackedBatch) -> Trace:
    """Run the encoder once with hooks on its parts."""
    values: dict[str, Tensor | tuple[Tensor, ...]] = {}
    handles = []

    def note(module: nn.Module, name: str, side: str, num_heads: int = 0) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            tensor = (inputs[0] if side == "in" else output).detach()
            values[name] = tensor.unflatten(-1, (num_heads, -1)) if num_heads else tensor

        handles.append(module.register_forward_hook(hook))

    for name, (part, side) in EMBEDDINGS.items():
        note(encoder.embeddings.get_submodule(part), f"embeddings.{name}", side)
    for i, block in enumerate(encoder.layers):
        for name, (part, side) in BLOCK.items():
            heads = block.attn.num_heads if name in BY_HEAD else 0
            note(block.get_submodule(part), f"layers.{i}.{name}", side, heads)
    try:
        output = encoder(batch)
    finally:
        for handle in handles:
            handle.remove()
    return Trace(in_order(values, encoder, batch.layout), batch.layout, output.detach())


def in_order(values: dict, encoder: nn.Module, layout: Layout) -> dict:
    """The noted values in reading order, with scores and probabilities put beside them."""
    out = {f"embeddings.{name}": values[f"embeddings.{name}"] for name in EMBEDDINGS}
    for i, block in enumerate(encoder.layers):
        for name in BLOCK:
            if name == "context":
                q, k = (values[f"layers.{i}.{w}"].split(layout.lengths) for w in ("query", "key"))
                looks = tuple(
                    scores(q_text, k_text, block.attn.head_width**-0.5)
                    for q_text, k_text in zip(q[: layout.num_texts], k)
                )  # each (H, n, n)
                out[f"layers.{i}.scores"] = looks
                out[f"layers.{i}.probs"] = tuple(probabilities(s) for s in looks)
            out[f"layers.{i}.{name}"] = values[f"layers.{i}.{name}"]
    return out
