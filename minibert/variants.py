"""What other families change inside BERT's blocks: gates, rotary positions, a bias by distance.

In:  what the part of encoder.py takes in whose place it stands.   Out: the same shapes.

encoder.py is BERT's own text; a config that asks for one of these gets it from here.
    GatedFeedForward   ModernBERT: down(act(up(h)) * gate(h))
    rotate             ModernBERT: positions turn queries and keys instead of being added
    DistanceBias       MPNet: a number for each distance and head, added to the scores
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch import Layout
from .config import EncoderConfig

ACTIVATIONS = {
    # x * Phi(x) by erf, as the published PyTorch weights expect; the tanh form differs in the fourth digit.
    "gelu": F.gelu,
    "relu": F.relu,
    "tanh": torch.tanh,
    # ALBERT's second version was trained with the tanh form.
    "gelu_new": functools.partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": functools.partial(F.gelu, approximate="tanh"),
}


class GatedFeedForward(nn.Module):
    """A feed-forward whose units are each let through by a gate of their own (Shazeer 2020, GeGLU).

    In:  hidden (N, D)
    Out: (N, D)
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        D, width, bias = config.hidden_width, config.ffn_width, config.facts.biases
        self.up = nn.Linear(D, width, bias=bias)
        self.gate = nn.Linear(D, width, bias=bias)
        self.down = nn.Linear(width, D, bias=bias)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = nn.Dropout(config.ffn_dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        passed = self.activation(self.up(hidden)) * self.gate(hidden)  # (N, F)
        return self.down(self.dropout(passed))  # (N, D)


def rotate(x: Tensor, layout: Layout, base: float) -> Tensor:
    """Turn each pair of features by an angle that grows with the token's position. (N, H, K) -> (N, H, K).

    Pair i of a token at position p turns by p / base^(2i/K), so the product of a query and a key
    depends on their distance alone (Su et al. 2021, RoFormer). A pair is made of features i and
    i + K/2, as the published weights expect it.
    """
    cos, sin = angles(layout, base, x.shape[-1], x)  # each (N, 1, K/2)
    first, second = x.chunk(2, -1)  # each (N, H, K/2)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def angles(layout: Layout, base: float, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every token's angles, (N, 1, K/2) each; once a batch, not once a layer.

    Computed in float32 as the reference does, also for a float64 model.
    """

    def make() -> tuple[Tensor, Tensor]:
        steps = torch.arange(0, width, 2, dtype=torch.float32, device=like.device)
        turn = layout.positions[:, None].float() * (1.0 / base ** (steps / width))  # (N, K/2)
        return turn.cos()[:, None].to(like.dtype), turn.sin()[:, None].to(like.dtype)

    return layout.keep(("angles", base, width, like.dtype), make)


class DistanceBias(nn.Module):
    """One learnt number for each head and bucket of distances, the same in every layer.

    In:  longest, the length of the batch's longest text, T
    Out: (H, n), n = 2T - 1: the middle column for a token and itself, left of it keys that stand before

    Near distances have a bucket each, far ones share, logarithmically wider (Raffel et al. 2020, T5):
    half of the buckets look back, half ahead; from 128 on all share the last.
    """

    FARTHEST = 128

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.buckets = config.relative_buckets
        self.weight = nn.Parameter(torch.empty(self.buckets, config.num_heads))

    def forward(self, longest: int) -> Tensor:
        """T -> (H, 2T - 1)."""
        longest = max(longest, 1)
        ahead = torch.arange(1 - longest, longest, device=self.weight.device)  # key - query
        half, exact = self.buckets // 2, self.buckets // 4
        far = ahead.abs()
        # In float32 and in this order, as the weights were trained: a bucket's edge must not move.
        logs = torch.log(far.clamp(min=1).float() / exact) / math.log(self.FARTHEST / exact)
        wide = (exact + (logs * (half - exact)).long()).clamp(max=half - 1)
        bucket = torch.where(far < exact, far, wide) + (ahead > 0) * half
        return self.weight[bucket].T  # (H, n)
