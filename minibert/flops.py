"""How much arithmetic an encoder does on some texts: the multiplications and additions of its matrix products.

In:  an EncoderConfig and the lengths of texts, in tokens.   Out: floating-point operations.

    a token and layer    8 D D + 4 D F     query, key, value, out; up, down (gated: 6 D F)
    a text and layer     4 n n D           scores of its n tokens, and the values they weigh
    a token              2 E D             where embeddings are widened

Counted is what the task needs: real tokens, no padding, and no second pass of activation checkpointing.
Softmax, norms and activations are a percent or less and are left out, as is usual where a share of a card's
peak is told; so is the head. Training costs three times as much: gradients of inputs and of weights beside
the values (Kaplan et al. 2020, section 2.1).
"""

from __future__ import annotations

from collections.abc import Sequence

from .config import EncoderConfig


def forward_flops(config: EncoderConfig, lengths: Sequence[int]) -> float:
    """Operations of one forward pass over texts of these lengths."""
    D, F, L = config.hidden_width, config.ffn_width, config.num_layers
    token = L * (8 * D * D + (6 if config.facts.gated else 4) * D * F)
    token += 2 * config.words_width * D if config.projected else 0
    windows = config.windows or (0,) * L
    looks = sum(count * sum(pairs(n, reach) for n in lengths) for reach, count in counted(windows))
    return float(token * sum(lengths) + 4 * D * looks)


def training_flops(config: EncoderConfig, lengths: Sequence[int]) -> float:
    """Operations of a training step in which all weights learn: values, gradients of inputs, of weights."""
    return 3 * forward_flops(config, lengths)


def pairs(length: int, reach: int) -> int:
    """How many (query, key) there are in a text, where a token looks `reach` far to each side (0: everywhere)."""
    if not reach or reach >= length:
        return length * length
    return length * (2 * reach + 1) - reach * (reach + 1)


def counted(windows: Sequence[int]) -> list[tuple[int, int]]:
    """(reach, in how many layers)."""
    return [(reach, windows.count(reach)) for reach in sorted(set(windows))]
