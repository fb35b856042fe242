"""Activation checkpointing: a block keeps its input only, and computes the rest again when gradients need it.

In:  an Encoder.   Out: the same Encoder, whose memory in training no longer grows with what is inside a block.

For about a third more time a step keeps (N, D) a layer instead of some fifteen such tensors (Chen et al. 2016).
Dropout draws the same again: torch puts its generator back for the second pass.
"""

from __future__ import annotations

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(encoder: nn.Module) -> None:
    """From now on every block is computed again in the backward pass."""
    for block in encoder.layers:
        if not isinstance(block.forward, functools.partial):
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
