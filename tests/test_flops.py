"""The arithmetic of an encoder, by formula and as torch counts it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minibert.flops import forward_flops, pairs, training_flops

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
