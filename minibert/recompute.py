"""Computed again instead of kept: a block's activation on a processor, with `[train] recompute` all of a block.

In:  an Encoder.   Out: the same Encoder, which keeps less for the backward pass and gives the same bits.

    recompute_activations   a feed-forward keeps (N, F) once, before its bend, and bends it again, for the
                            activation's own time
    recompute               a block keeps its input, (N, D), instead of some sixteen such tensors, and a step
                            takes about a third more time (Chen et al. 2016)
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute(encoder: nn.Module) -> None:
    """From now on every block is computed again in the backward pass."""
    for block in encoder.layers:
        if getattr(block.forward, "func", None) is not checkpoint:  # compiled.py wraps it, too
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def recompute_activations(encoder: nn.Module) -> None:
    """From now on what stands behind a feed-forward's bend is computed again in the backward pass."""
    for block in encoder.layers:
        if not hasattr(block.ffn, "gate"):
            block.ffn.forward = functools.partial(lean, block.ffn)


def lean(ffn: nn.Module, hidden: Tensor) -> Tensor:
    """FeedForward.forward. (N, D) -> (N, D). The second pass ends before the product, whose input is all it needs."""
    up = ffn.up(hidden)  # (N, F)
    if not torch.is_grad_enabled():
        return bend(ffn, up)
    return checkpoint(bend, ffn, up, use_reentrant=False, preserve_rng_state=False)


def bend(ffn: nn.Module, x: Tensor) -> Tensor:
    """(N, F) -> (N, D)."""
    return ffn.down(ffn.activation(x))
