"""The steps of `minibert bench encoder`: from the naive padded encoder to the fastest, one change a line.

In:  a Step, a Model, token ids of texts.   Out: a Reader, which gives the hidden states of their real tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import device as devices
from .. import kernels
from ..batch import by_tokens, pack
from ..model import TOKENS_AT_ONCE, Model
from .clock import Call, Contestant
from .rectangles import rectangle

TEXTS = 32  # at once, as people have them

Groups = list[list[int]]  # places of texts that are read at once


def as_they_come(lengths: Sequence[int], budget: int) -> Groups:
    """TEXTS at once."""
    return [list(range(i, min(i + TEXTS, len(lengths)))) for i in range(0, len(lengths), TEXTS)]


def by_length(lengths: Sequence[int], budget: int) -> Groups:
    """TEXTS at once, from short to long."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    return [order[i : i + TEXTS] for i in range(0, len(order), TEXTS)]


def by_cells(lengths: Sequence[int], budget: int) -> Groups:
    """From short to long, at most `budget` cells of a rectangle, or one text."""
    groups: Groups = [[]]
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if groups[-1] and (len(groups[-1]) + 1) * lengths[i] > budget:
            groups.append([])
        groups[-1].append(i)
    return groups


@dataclass(frozen=True)
class Step:
    """One line of the waterfall.

    groups    which texts are read at once
    padded    in rectangles with a mask; else in packs
    kernel    of attention; "fast" is native, or sdpa where that can't run
    products  "own": the library that torch takes by itself; "best": that of device.products
    budget    "usual": TOKENS_AT_ONCE; "tuned": what was fastest in a trial
    """

    name: str
    what: str
    groups: Callable[[Sequence[int], int], Groups] = by_tokens
    padded: bool = False
    kernel: str = "fast"
    products: str = "own"
    budget: str = "usual"


# From each line to the next one thing changes. A new engine is a line at the end, and a case in Reader.read.
STEPS = (
    Step("naive", "32 texts as they come, padded; textbook attention", as_they_come, True, "bench textbook"),
    Step("+ fused attention", "torch's attention, with the mask", as_they_come, True, "bench fused"),
    Step("+ sorted", "32 texts of like length", by_length, True, "bench fused"),
    Step("+ token budget", "as many texts as fill a budget of cells", by_cells, True, "bench fused"),
    Step("+ packed", "no padding, no mask: texts of equal length meet in attention", kernel="sdpa"),
    Step("+ native attention", "in C++, texts of any length", kernel="native"),
    Step("+ faster products", "by another library than torch's own", products="best"),
    Step("+ tuned budget", "as many tokens at once as go fastest", products="best", budget="tuned"),
)


class Reader:
    """One step with one model and its texts."""

    def __init__(self, step: Step, model: Model, ids: list[list[int]], budget: int = TOKENS_AT_ONCE):
        self.step, self.model, self.ids, self.budget = step, model, ids, budget
        self.kernel = step.kernel
        if step.kernel == "fast":
            native = kernels.KERNELS["native"]
            self.kernel = "sdpa" if native.why_not() or native.build(True) else "native"

    @torch.inference_mode()
    def read(self, last: bool = False) -> Iterator[tuple[list[int], Tensor]]:
        """(places, hidden states (n, D) of their real tokens), a group at a time; or of the last group alone."""
        self.model.encoder.use_kernel(self.kernel)
        own = self.step.products == "own"
        with devices.torchs_own_products() if own else contextlib.nullcontext():
            groups = self.step.groups([len(text) for text in self.ids], self.budget)
            for places in groups[-1:] if last else groups:
                some = [self.ids[place] for place in places]
                if self.step.padded:
                    batch, real = rectangle(some, self.model.config.pad_id)
                    yield places, self.model.engine(batch)[real]
                else:
                    yield places, self.model.engine(pack(some))

    def hidden(self) -> np.ndarray:
        """(N, D), the texts as they come."""
        found = {}
        for places, rows in self.read():
            pieces = rows.split([len(self.ids[place]) for place in places])
            found |= {place: piece.numpy() for place, piece in zip(places, pieces)}
        return np.concatenate([found[place] for place in range(len(self.ids))])

    def contestant(self, name: str) -> Contestant:
        """As the harness takes it."""

        def all_of(last: bool) -> None:
            for _ in self.read(last):
                pass

        return contestant(name, lambda: all_of(True), lambda: all_of(False))


def contestant(name: str, short: Call, whole: Call) -> Contestant:
    """Who calls `short` first, then `whole`: the harness calls once before it looks at the clock."""

    def prepare(_: object) -> Call:
        turns = iter((short,))
        return lambda: next(turns, whole)()

    return Contestant(name, prepare)
