"""The arithmetic of an encoder, by formula and as torch counts it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minibert.flops import PEAKS, forward_flops, pairs, peak, training_flops

from .helpers import EVERY, LENGTHS, toy_batch, toy_config, toy_encoder


@pytest.mark.parametrize("family", EVERY)
def test_the_formula_is_what_torch_counts(family):
    """Exactly: every product of every family, forward, and with the gradients of all of them."""
    encoder, batch = toy_encoder(family, kernel="reference").train(), toy_batch()
    whole = dataclasses.replace(encoder.config, windows=())  # the reference computes what a window hides
    with FlopCounterMode(display=False) as counter:
        out = encoder(batch)
    assert counter.get_total_flops() == forward_flops(whole, LENGTHS)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(out.sum(), list(encoder.parameters()), allow_unused=True)
    assert counter.get_total_flops() == training_flops(whole, LENGTHS) - forward_flops(whole, LENGTHS)


@pytest.mark.parametrize("reach", [0, 1, 2, 6, 7, 8])
def test_a_window_is_counted_by_what_it_shows(reach):
    seen = sum(abs(i - j) <= reach or not reach for i in range(7) for j in range(7))
    assert pairs(7, reach) == seen


def test_published_sizes():
    """BERT-base at 128 and 512 tokens: 174.6 and 188.7 million operations a token."""
    base = toy_config(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
    assert forward_flops(base, [128]) / 128 == pytest.approx(174.6e6, rel=1e-3)
    assert forward_flops(base, [512] * 3) / (3 * 512) == pytest.approx(188.7e6, rel=1e-3)
    assert forward_flops(base, []) == 0


# Names as torch.cuda.get_device_name gives them.
CARDS = [
    ("NVIDIA H100 80GB HBM3", 989.5), ("NVIDIA H100 PCIe", 756.5), ("NVIDIA H100 NVL", 835.5),
    ("NVIDIA H200", 989.5), ("NVIDIA H200 NVL", 835.5), ("NVIDIA A100-SXM4-40GB", 312),
    ("NVIDIA A100 80GB PCIe", 312), ("NVIDIA A100-PCIE-40GB", 312), ("NVIDIA A30", 165), ("NVIDIA A10", 125),
    ("NVIDIA L4", 121), ("NVIDIA L40S", 362), ("NVIDIA GeForce RTX 4090", 165.2), ("NVIDIA GeForce RTX 3090", 71),
    ("NVIDIA A10G", None), ("NVIDIA L40", None), ("NVIDIA GeForce RTX 4090 D", None), ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("Tesla T4", None),
    ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None), ("NVIDIA GeForce RTX 9999", None), ("", None),
]  # fmt: skip


@pytest.mark.parametrize(("card", "wanted"), CARDS)
def test_a_cards_peak_is_found_by_its_name(card, wanted):
    assert peak(card, "bfloat16") == (wanted and wanted * 1e12)


def test_peaks_of_the_formats_stand_in_order():
    """What computes with fewer bits is as fast or faster; older cards have float16 only."""
    for row in PEAKS.values():
        assert row["float16"] >= row.get("tf32", row["float32"]) >= row["float32"]
        assert row.get("bfloat16", row["float16"]) == row["float16"] and ("tf32" in row) == (
            "bfloat16" in row
        )
    assert peak("Tesla T4", "float16") == 65e12 and peak("Tesla V100-SXM2-16GB", "float16") == 125e12
    assert peak("Tesla V100-PCIE-16GB", "float32") == 14e12 and peak("Tesla T4", "tf32") is None
