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

import fnmatch
from collections.abc import Sequence

from .config import EncoderConfig

HALF = ("bfloat16", "float16")
# A card's name without its maker -> its matrix products' peak in each number format, in 1e12 operations a second,
# dense, at the boost clock. From NVIDIA's data sheets, whose figures "with sparsity" are halved. Where a format is
# missing the card is slow in it, or lacks it; a card that is not here has no share of its peak.
PEAKS: dict[str, dict[str, float]] = {
    # "NVIDIA H200 Tensor Core GPU", data sheet: 1,979 with sparsity, TF32 989; NVL 1,671 and 836
    "H200 NVL": {**dict.fromkeys(HALF, 835.5), "tf32": 418.0, "float32": 60.0},
    "H200": {**dict.fromkeys(HALF, 989.5), "tf32": 494.5, "float32": 67.0},
    # "NVIDIA H100 Tensor Core GPU", data sheet: SXM as H200; NVL 1,671 and 835; PCIe 1,513 and 756
    "H100 NVL": {**dict.fromkeys(HALF, 835.5), "tf32": 417.5, "float32": 60.0},
    "H100 PCIe": {**dict.fromkeys(HALF, 756.5), "tf32": 378.0, "float32": 51.0},
    "H100 80GB HBM3": {**dict.fromkeys(HALF, 989.5), "tf32": 494.5, "float32": 67.0},
    # "NVIDIA A100 Tensor Core GPU", data sheet: SXM and PCIe, 40 and 80 GB alike
    "A100*[0-9]GB*": {**dict.fromkeys(HALF, 312.0), "tf32": 156.0, "float32": 19.5},
    # "NVIDIA A30 Tensor Core GPU", data sheet
    "A30": {**dict.fromkeys(HALF, 165.0), "tf32": 82.0, "float32": 10.3},
    # "NVIDIA A10 Tensor Core GPU", data sheet; the A10G of clouds is another card
    "A10": {**dict.fromkeys(HALF, 125.0), "tf32": 62.5, "float32": 31.2},
    # "NVIDIA L4 Tensor Core GPU", data sheet: 242 with sparsity, TF32 120
    "L4": {**dict.fromkeys(HALF, 121.0), "tf32": 60.0, "float32": 30.3},
    # "NVIDIA L40S", data sheet: dense 362.05, TF32 183
    "L40S": {**dict.fromkeys(HALF, 362.0), "tf32": 183.0, "float32": 91.6},
    # "NVIDIA Ada GPU architecture", white paper, appendix A: with float32 sums, dense
    "GeForce RTX 4090": {**dict.fromkeys(HALF, 165.2), "tf32": 82.6, "float32": 82.6},
    # "NVIDIA Ampere GA102 GPU architecture", white paper, appendix A: the same
    "GeForce RTX 3090": {**dict.fromkeys(HALF, 71.0), "tf32": 35.6, "float32": 35.6},
    # "NVIDIA T4 Tensor Core GPU", data sheet
    "T4": {"float16": 65.0, "float32": 8.1},
    # "NVIDIA V100 Tensor Core GPU", data sheet
    "V100-SXM2-*": {"float16": 125.0, "float32": 15.7},
    "V100-PCIE-*": {"float16": 112.0, "float32": 14.0},
}


def peak(card: str, word: str) -> float | None:
    """Operations a second that a card of this name can do at most in a number format; None where that is unknown.

    A slice of a card (MIG) has a share of them that its name does not say.
    """
    name = card.removeprefix("NVIDIA ").removeprefix("Tesla ")
    row = next((row for pattern, row in PEAKS.items() if fnmatch.fnmatchcase(name, pattern)), {})
    return row[word] * 1e12 if word in row and "MIG" not in name else None


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
