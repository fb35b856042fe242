"""What is taken out of an encoder to see what it was good for: heads, layers, positions.

In:  an encoder and a Change.   Out: the same encoder, changed while a `with` block lasts.

Nothing of the encoder's code knows of it: hooks on its parts do it, as in trace.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from ..encoder import Encoder
from ..errors import ConfigError


@dataclass(frozen=True)
class Change:
    """heads: (layer, head) whose outputs become 0; layers: skipped; positions: no token knows its place."""

    heads: tuple[tuple[int, int], ...] = ()
    layers: tuple[int, ...] = ()
    positions: bool = False


def check(change: Change, encoder: Encoder) -> None:
    """ConfigError for a head or layer that the encoder hasn't."""
    L, H = encoder.config.num_layers, encoder.config.num_heads
    for layer in (*change.layers, *(layer for layer, _ in change.heads)):
        if not 0 <= layer < L:
            raise ConfigError(f"there is no layer {layer}", f"Layers count from 0 to {L - 1}.")
    for _, head in change.heads:
        if not 0 <= head < H:
            raise ConfigError(f"there is no head {head}", f"Heads count from 0 to {H - 1}.")


@contextlib.contextmanager
def applied(encoder: Encoder, change: Change) -> Iterator[None]:
    """The encoder without these parts; whole again afterwards, whatever happens inside."""
    check(change, encoder)
    with contextlib.ExitStack() as stack:
        now = [0]  # the layer being computed: in ALBERT one block stands for several
        for block in encoder.layers:
            hooks = [
                block.register_forward_pre_hook(lambda _, inputs: now.__setitem__(0, inputs[1].layer)),
                block.attn.out.register_forward_pre_hook(without_heads(change, now, block.attn.head_width)),
                block.register_forward_hook(
                    lambda _, inputs, out: inputs[0] if inputs[1].layer in change.layers else out
                ),
            ]
            for hook in hooks:
                stack.callback(hook.remove)
        if change.positions:
            for part in placed(encoder):
                part(stack)
        yield


def without_heads(change: Change, now: list[int], width: int) -> Callable:
    """A hook in front of the output projection: what these heads found (N, D) becomes 0."""

    def hook(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        off = [head for layer, head in change.heads if layer == now[0]]
        if not off:
            return None
        context = inputs[0].unflatten(-1, (-1, width)).clone()  # (N, H, K)
        context[:, off] = 0
        return (context.flatten(1),)  # (N, D)

    return hook


def placed(encoder: Encoder) -> list[Callable[[contextlib.ExitStack], None]]:
    """What takes away each way in which this encoder knows where a token stands."""
    out: list[Callable[[contextlib.ExitStack], None]] = []
    if encoder.embeddings.position is not None:
        hook = encoder.embeddings.position.register_forward_hook
        out.append(lambda stack: stack.callback(hook(lambda _, inputs, found: found * 0).remove))
    for attn in (block.attn for block in encoder.layers):
        for name, none in (("rotary", None), ("distance", ())):
            if getattr(attn, name):
                out.append(lambda stack, a=attn, n=name, none=none: without(stack, a, n, none))
    return out


def without(stack: contextlib.ExitStack, part: nn.Module, name: str, none: object) -> None:
    """Set an attribute aside until the stack closes."""
    stack.callback(setattr, part, name, getattr(part, name))
    setattr(part, name, none)
