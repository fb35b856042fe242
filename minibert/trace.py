"""Every intermediate result of a forward pass, by name, read off a plain call.

In:  an Encoder and a PackedBatch.   Out: Trace, a mapping from names to tensors:

    embeddings.{word,position,segment,sum,normed}                                       (N, E)
    embeddings.projected             where narrow embeddings are widened               (N, D)
    layers.{i}.{query,key,value,context}                                             (N, H, K)
    layers.{i}.{scores,probs}                                 a tuple, one (H, n, n) for each text
    layers.{i}.{attn_out,attn_normed,ffn_out,ffn_normed}                                (N, D)
    layers.{i}.{ffn_up,ffn_act}, and ffn_gate where there is one                        (N, F)
    final_normed                     where norms stand in front of each part            (N, D)

What a family doesn't have is not there. Query and key are those before rotary positions turn them.
Where norms come first, attn_normed is what attention reads and ffn_normed what feed-forward reads, and
`layers.{i}.out` (N, D) is what a block gives on; after other blocks that is ffn_normed.

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
from .variants import rotate

# name in the trace -> (part of the module, what is noted: what goes in or what comes out)
EMBEDDINGS = {
    "word": ("word", "out"),
    "position": ("position", "out"),
    "segment": ("segment", "out"),
    "sum": ("norm", "in"),
    "normed": ("norm", "out"),
    "projected": ("project", "out"),
}
BLOCK = {
    "query": ("attn.query", "out"),
    "key": ("attn.key", "out"),
    "value": ("attn.value", "out"),
    "context": ("attn.out", "in"),
    "attn_out": ("attn.out", "out"),
    "attn_normed": ("attn_norm", "out"),
    "ffn_up": ("ffn.up", "out"),
    "ffn_gate": ("ffn.gate", "out"),
    "ffn_act": ("ffn.down", "in"),
    "ffn_out": ("ffn.down", "out"),
    "ffn_normed": ("ffn_norm", "out"),
    "out": ("", "out"),
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
    handles, layer = [], iter(range(encoder.config.num_layers))
    current = [0]  # the layer that is being computed: a block may stand for several

    def note(module: nn.Module, part: str, name: str, side: str, num_heads: int = 0) -> None:
        for step in part.split(".") if part else ():
            module = getattr(module, step, None)
        if module is None:  # this family has no such part
            return

        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            tensor = (inputs[0] if side == "in" else output).detach()
            values[name.format(*current)] = tensor.unflatten(-1, (num_heads, -1)) if num_heads else tensor

        handles.append(module.register_forward_hook(hook))

    def begin(*_: object) -> None:
        current[0] = next(layer)

    for name, (part, side) in EMBEDDINGS.items():
        note(encoder.embeddings, part, f"embeddings.{name}", side)
    for block in encoder.layers:
        handles.append(block.register_forward_pre_hook(begin))
        for name, (part, side) in BLOCK.items():
            if name == "out" and not block.pre_norm:
                continue
            heads = block.attn.num_heads if name in BY_HEAD else 0
            note(block, part, f"layers.{{}}.{name}", side, heads)
    note(encoder, "final_norm", "final_normed", "out")
    try:
        output = encoder(batch)
    finally:
        for handle in handles:
            handle.remove()
    return Trace(in_order(values, encoder, batch.layout), batch.layout, output.detach())


def in_order(values: dict, encoder: nn.Module, layout: Layout) -> dict:
    """The noted values in reading order, with scores and probabilities put beside them."""
    names = [f"embeddings.{name}" for name in EMBEDDINGS]
    for i, block in enumerate(encoder.walk()):
        query, key = values[f"layers.{i}.query"], values[f"layers.{i}.key"]
        values[f"layers.{i}.scores"] = scores_of(block.attn, query, key, layout)
        values[f"layers.{i}.probs"] = tuple(probabilities(s) for s in values[f"layers.{i}.scores"])
        order = list(BLOCK)
        order[order.index("context") : order.index("context")] = ["scores", "probs"]
        names += [f"layers.{i}.{name}" for name in order]
    return {name: values[name] for name in (*names, "final_normed") if name in values}


def scores_of(attn: nn.Module, query: Tensor, key: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """Every text's scores, (H, n, n) each, from its queries and keys by the reference formula."""
    if attn.rotary:
        query, key = rotate(query, layout, attn.rotary), rotate(key, layout, attn.rotary)
    bias = attn.bias(layout)
    return tuple(
        scores(q_text, k_text, attn.head_width**-0.5, attn.window, bias).detach()
        for q_text, k_text in zip(query.split(layout.lengths)[: layout.num_texts], key.split(layout.lengths))
    )
