"""nonfinite.py: the part, the parameter or the text that first stops being finite, on small modules of each fault."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from minibert import nonfinite

from .helpers import toy_batch, toy_encoder

INPUTS = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))


class Toy(nn.Module):
    """Two layers with a function between them, as a kernel stands between attention's projections."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8))
        self.out = nn.Linear(8, 3)
        self.between = lambda x: x

    def forward(self, x):
        return self.out(self.between(self.inner(x)))


def compute(model, inputs=INPUTS, spoil=lambda total: total):
    def of(places):
        total = spoil(model(inputs[list(places)]).pow(2).sum())
        total.backward()
        return total.detach(), torch.tensor(float(len(places)))

    return of


def poke(p, value, at=0):
    with torch.no_grad():
        p.view(-1)[at] = value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["inner.0.weight", "inner.0.bias", "inner.1.weight", "out.bias"])
def test_the_part_whose_weight_is_broken_is_named(name, value):
    model = Toy()
    poke(dict(model.named_parameters())[name], value)
    place = nonfinite.search(model, compute(model), [4, 2, 5])
    part, weight = name.rsplit(".", 1)
    assert place.said == f"what {part} gives, whose own {weight} holds numbers that are not"
    assert place.texts == (4, 2, 5)
    assert all(p.grad is None for p in model.parameters()) and not any(
        m._forward_hooks for m in model.modules()
    )


def test_an_overflow_is_told_from_a_broken_weight():
    model = Toy()
    poke(model.inner[1].weight, 1e3)
    poke(model.out.weight, 3e38)
    place = nonfinite.first(model, compute(model), [0, 1, 2])
    assert place.said.startswith("what out gives, from finite numbers of up to ")


def test_what_a_function_between_parts_spoils_is_what_the_next_is_given():
    model = Toy()
    model.between = lambda x: x / 0.0
    place = nonfinite.first(model, compute(model), [0])
    assert place.said == "what out is given, while every part before it gives finite numbers"


def test_a_text_that_is_alone_in_it_is_named():
    model, inputs = Toy(), INPUTS.clone()
    inputs[3, 0] = float("inf")
    place = nonfinite.search(model, compute(model, inputs), [5, 3, 1])
    assert (
        place.said == "what inner is given, while every part before it gives finite numbers"
        and place.texts == (3,)
    )
    said = nonfinite.told(place, [5, 3, 1], lambda p: f"row {p}")
    assert said == f"not finite first: {place.said}; so with row 3 alone, and not with the others"


def test_a_loss_alone():
    model = Toy()
    place = nonfinite.search(model, compute(model, spoil=lambda total: total * float("inf")), [0, 1])
    assert place.said.startswith("the loss, inf over a count of 2, while every part") and place.texts == (
        0,
        1,
    )


def test_a_gradient_alone_is_named_in_the_order_of_the_backward_pass():
    model = Toy()
    model.inner[1].weight.register_hook(lambda g: g * float("inf"))
    model.inner[0].weight.register_hook(lambda g: g * float("nan"))
    place = nonfinite.first(model, compute(model), [0, 1])
    assert place.said == "the gradient of inner.1.weight, while the loss and what leads to it are finite"


def test_a_norm_that_overflows():
    model = Toy()
    model.out.bias.register_hook(lambda g: g * 0 + 3e38)
    place = nonfinite.first(model, compute(model), [0])
    assert (
        place.said == "the gradients' norm, while every number is finite: the largest are those of out.bias"
    )


def test_a_step_that_is_finite_the_second_time_says_so():
    assert nonfinite.search(Toy(), compute(Toy()), [0, 1]) is None
    assert "a fault of the machine" in nonfinite.told(None, [0, 1], str)


def test_what_several_texts_show_is_counted():
    place = nonfinite.Place("x", (1, 2, 3, 4))
    assert nonfinite.told(place, range(9), str).endswith(
        "so with 1, 2, 3 and 1 more alone, and not with the others"
    )
    assert nonfinite.told(place, [1, 2, 3, 4], str).endswith("so with each of these texts by itself")
    together = nonfinite.told(nonfinite.Place("x"), [1, 2], str)
    assert together.endswith("so with these texts together, and with none of them alone")


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("part", ["attn.query", "attn.out", "ffn.up", "ffn_norm"])
def test_the_very_layer_of_an_encoder_is_named(layer, part):
    encoder, batch = toy_encoder(), toy_batch()
    poke(encoder.layers[layer].get_submodule(part).weight, float("nan"))

    def of(places):
        total = F.mse_loss(encoder(batch), torch.zeros(18, 24), reduction="sum")
        total.backward()
        return total.detach(), torch.tensor(3.0)

    place = nonfinite.first(encoder, of, [0])
    assert place.said == f"what layers.{layer}.{part} gives, whose own weight holds numbers that are not"


def test_a_kernel_that_overflows_is_seen_where_its_context_goes():
    """Scores of 1e40: the projections are finite, the attention between them is not."""
    encoder, batch = toy_encoder(kernel="reference"), toy_batch()
    with torch.no_grad():
        for name in ("query", "key"):
            getattr(encoder.layers[1].attn, name).weight.mul_(1e20)

    def of(places):
        total = encoder(batch).sum()
        total.backward()
        return total.detach(), torch.tensor(3.0)

    place = nonfinite.first(encoder, of, [0])
    assert place.said == "what layers.1.attn.out is given, while every part before it gives finite numbers"
