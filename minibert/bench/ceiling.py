"""The matrix-multiply ceiling: an encoder's own products and nothing else, by the fastest library there is.

For each batch, layer by layer: query, key and value at once (D, 3 D), out (D, D), up (D, F), down (F, D), at
as many rows as the batch has tokens, each layer with weights of its own, into memory that is there. What an
encoder takes beyond that is attention, activations, norms, and what its products lose to a faster library.

In:  an EncoderConfig, the tokens of the largest batch.   Out: a function that does the products; a library's name.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .. import device as devices
from ..config import EncoderConfig
from ..errors import EnvironmentProblem
from .clock import Call, Contestant, race

ROUNDS = 3  # in which libraries are tried, on the largest batch ...
TRIED = 5  # ... and so many products: those of the first layer

Multiply = Callable[[Tensor, Tensor], object]  # x (rows, k), out (rows, m)


def torchs_own(weight: Tensor) -> Multiply:
    """The library that torch takes by itself: MKL, in its packages for x86."""

    def multiply(x: Tensor, out: Tensor) -> None:
        with devices.torchs_own_products():
            torch.mm(x, weight.t(), out=out)

    return multiply


def chosen(weight: Tensor) -> Multiply:
    """What device.products chose instead."""
    if devices.products() == "torch's own":
        raise EnvironmentProblem("device.products left torch's own choice")
    return lambda x, out: torch.mm(x, weight.t(), out=out)


def packed(weight: Tensor) -> Multiply:
    """oneDNN with weights laid out beforehand, as an engine may have them. torch's private names."""
    ready = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda x, out: torch.ops.mkldnn._linear_pointwise(x, ready, None, "none", [], "")


def numpys(weight: Tensor) -> Multiply:
    """OpenBLAS, in NumPy's packages."""
    turned = weight.numpy().T
    return lambda x, out: np.matmul(x.numpy(), turned, out=out.numpy())


LIBRARIES: dict[str, Callable[[Tensor], Multiply]] = {
    "torch's own library": torchs_own,
    "device.products": chosen,
    "oneDNN, weights packed": packed,
    "NumPy's library": numpys,
}


def shapes(config: EncoderConfig) -> list[tuple[int, int]]:
    """(k, m) of every product of one pass, from the first layer to the last."""
    D, F = config.hidden_width, config.ffn_width
    layer = [(D, 3 * D), (D, D), (D, F), *[(D, F)] * config.facts.gated, (F, D)]
    widened = [(config.words_width, D)] if config.projected else []
    return widened + layer * config.num_layers


class Products:
    """The products of one encoder, with room for `rows` tokens at once."""

    def __init__(self, config: EncoderConfig, rows: int):
        self.rows, self.shapes = rows, shapes(config)
        self.weights = [torch.randn(m, k) for k, m in self.shapes]
        self.inputs = {k: torch.randn(rows, k) for k, _ in self.shapes}
        self.outputs = {m: torch.empty(rows, m) for _, m in self.shapes}

    def by(self, library: str, most: int | None = None) -> Callable[[Sequence[int]], None]:
        """A function that does all of them, or the first so many, for batches of so many tokens."""
        done = [
            (k, m, LIBRARIES[library](weight)) for (k, m), weight in zip(self.shapes[:most], self.weights)
        ]

        def products(batches: Sequence[int]) -> None:
            with torch.inference_mode():
                for rows in batches:
                    for k, m, multiply in done:
                        multiply(self.inputs[k][:rows], self.outputs[m][:rows])

        return products

    def fastest(self) -> str:
        """The library that is fastest here and now."""

        def prepare(library: str) -> Call:
            products = self.by(library, TRIED)
            return lambda: products([self.rows])

        tried = [Contestant(name, lambda _, name=name: prepare(name)) for name in LIBRARIES]
        found = race(tried, lambda number: None, rounds=ROUNDS, warm=0.0).values()
        return min(
            (one for one in found if not one.problem), key=lambda one: statistics.median(one.rounds.values())
        ).name
