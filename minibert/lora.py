"""LoRA: learn a small correction of attention's projections and leave the published weights as they are.

In:  an Encoder.   Out: the same Encoder, some of whose linear layers carry a correction of low rank.

    W x  becomes  W x + (alpha / r) B A x         A (r, in), B (out, r)         Hu et al. 2021

Only A and B learn, r numbers for each row and column where W has a whole matrix: gradients and
AdamW's two moments shrink by as much. A model is saved with the corrections added into the weights
(`plain_state`; `merge` does it in place), so that it is a plain model, which loads anywhere and costs nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .errors import ConfigError, nearest

TARGETS = ("query", "key", "value", "out")


class LowRank(nn.Module):
    """A linear layer with a correction: the layer stays, the correction learns.

    In:  hidden (N, D)
    Out: (N, D)
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, generator: torch.Generator):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        like = {"dtype": linear.weight.dtype, "device": linear.weight.device}
        # A as a linear layer begins, B at 0: at the first step the correction is nothing.
        drawn = torch.randn(rank, linear.in_features, generator=generator) / linear.in_features**0.5
        self.down = nn.Parameter(drawn.to(**like))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, **like))

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return self.linear(hidden) + (hidden @ self.down.T) @ self.up.T * self.scale

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer, with the correction added into its weight."""
        self.linear.weight += self.up @ self.down * self.scale
        return self.linear.requires_grad_(True)


def add(
    encoder: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = ("query", "value"),
    seed: int = 0,
) -> None:
    """Freeze the encoder, and give every block's `targets` a correction that learns.

    Raises ConfigError for a rank below 1, an unknown target, or an encoder that has corrections already.
    """
    unknown = [t for t in targets if t not in TARGETS]
    if unknown or not targets:
        wrong = unknown[0] if unknown else ""
        raise ConfigError(f"LoRA target {wrong!r} is none of {', '.join(TARGETS)}{nearest(wrong, TARGETS)}")
    if rank < 1 or not alpha > 0:
        raise ConfigError(f"LoRA needs rank 1 or more and alpha above 0, not {rank} and {alpha}")
    if corrections(encoder):
        raise ConfigError("this encoder carries LoRA corrections already", "Merge them first.")
    encoder.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for block in encoder.layers:
        for name in targets:
            setattr(block.attn, name, LowRank(getattr(block.attn, name), rank, alpha, generator))


def corrections(encoder: nn.Module) -> list[LowRank]:
    """Every correction that an encoder carries."""
    return [part for part in encoder.modules() if isinstance(part, LowRank)]


def plain_state(encoder: nn.Module) -> dict[str, Tensor]:
    """An encoder's state with every correction added into its weight, under plain names; nothing is changed."""
    state = encoder.state_dict()
    for name, part in encoder.named_modules():
        if isinstance(part, LowRank):
            change = (part.up @ part.down * part.scale).detach()
            del state[f"{name}.down"], state[f"{name}.up"]
            state[f"{name}.weight"] = state.pop(f"{name}.linear.weight") + change
            if part.linear.bias is not None:
                state[f"{name}.bias"] = state.pop(f"{name}.linear.bias")
    return state


def merge(encoder: nn.Module) -> None:
    """Add every correction into its weight: a plain encoder again, all of which may learn."""
    for block in encoder.layers:
        for name in TARGETS:
            part = getattr(block.attn, name)
            if isinstance(part, LowRank):
                setattr(block.attn, name, part.merged())
    encoder.requires_grad_(True)
