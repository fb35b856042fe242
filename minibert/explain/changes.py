"""What is taken out of an encoder to see what it was good for: heads, layers, positions.

In:  an encoder and Changes.   Out: the same encoder, changed while a `with` block lasts.

Nothing of the encoder's code knows of it: hooks on its parts do it, as in trace.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..batch import Layout
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
def applied(encoder: Encoder, *changes: Change) -> Iterator[None]:
    """The encoder without these parts: one Change for all texts of a batch, or one for each of them (positions: of all).

    It is whole again afterwards, whatever happens inside.
    """
    for change in changes:
        check(change, encoder)
    if len({change.positions for change in changes}) > 1:
        raise ConfigError("positions are taken from all texts of a batch, or from none")
    L, H = encoder.config.num_layers, encoder.config.num_heads
    kept, skipped = torch.ones(len(changes), L, H), torch.zeros(len(changes), L, dtype=torch.bool)
    for i, change in enumerate(changes):
        for layer, head in change.heads:
            kept[i, layer, head] = 0
        skipped[i, list(change.layers)] = True
    with contextlib.ExitStack() as stack:
        now: list[Layout] = []  # what the block being computed reads; in ALBERT one stands for several layers
        for block in encoder.layers:
            for hook in (
                block.register_forward_pre_hook(lambda _, inputs: now.__setitem__(slice(None), inputs[1:])),
                block.attn.out.register_forward_pre_hook(without_heads(kept, now)),
                block.register_forward_hook(without_layers(skipped)),
            ):
                stack.callback(hook.remove)
        if any(change.positions for change in changes):
            for part in placed(encoder):
                part(stack)
        yield


def without_heads(kept: Tensor, now: list[Layout]) -> Callable:
    """A hook in front of the output projection: what these heads found (N, D) becomes 0. kept (B, L, H), or B = 1."""

    def hook(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        [layout] = now
        mine = kept[:, layout.layer]  # (B, H)
        if bool(mine.all()):
            return None
        found = inputs[0].unflatten(-1, (mine.shape[-1], -1))  # (N, H, K)
        return ((found * of_tokens(mine, layout).to(found)[..., None]).flatten(1),)  # (N, D)

    return hook


def without_layers(skipped: Tensor) -> Callable:
    """A hook behind a block: where it is skipped, what came in goes out. skipped (B, L), or B = 1."""

    def hook(_: nn.Module, inputs: tuple[Tensor, Layout], out: Tensor) -> Tensor | None:
        hidden, layout = inputs
        mine = skipped[:, layout.layer]  # (B,)
        if not bool(mine.any()):
            return None
        return torch.where(of_tokens(mine, layout).to(out.device)[:, None], hidden, out)  # (N, D)

    return hook


def of_tokens(each: Tensor, layout: Layout) -> Tensor:
    """What holds for each text, (B, ...), or for all, (1, ...), for each of their tokens, (N, ...)."""
    return each[layout.owner.cpu()] if len(each) > 1 else each.expand(layout.cu_seqlens[-1], *each.shape[1:])


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
