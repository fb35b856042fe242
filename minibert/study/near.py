"""Texts of one part that stand in another, word for word or nearly so.

In:  two lists of texts.
Out: pairs of places, each with how alike they are: 1.0 for the same text, but for case and spaces.

Alike is the Jaccard index of their stretches of five characters: those in both over those in either. It needs no
words, so it serves every script. Two texts of 60 characters that differ in one word reach about 0.7, of 300
characters 0.94.

No text is compared with all others. Two texts that are as alike as the threshold have at least need = threshold * n
of their n stretches in common. In any order that serves for all texts, here the rarest first, the first of the common
ones stands among the first n - need + 1 of either, and k of them among the first n - need + k (prefix filtering:
Chaudhuri et al. 2006; Bayardo et al. 2007, "Scaling up all pairs similarity search"). So only texts that share that
many of their rarest are compared, exactly; k grows with the text, for long ones share a few by chance. Rarity is
counted in a table of fixed size, where stretches that fall into one cell count as one: that changes the order and
nothing else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..data.parts import folded

THRESHOLD = 0.8
WIDE = 5  # characters of a stretch
SHARED, LEAST = 20, 4  # k: one in 20 of a text's stretches, and 4 in any case
LOOKED_AT = 30  # of the texts that share the most: more are compared only where hundreds are nearly the same
CELLS = 22  # 2^22 counts of stretches, 16 MB
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd and without a pattern: 2^64 over the golden ratio


def near_duplicates(
    train_texts: Sequence[str], test_texts: Sequence[str], threshold: float = THRESHOLD
) -> dict[str, Any]:
    """For each test text the training text most like it, where one is at least as alike as `threshold`.

    {"threshold", "texts": test texts, "exact": how many are in train, "near": how many nearly are,
     "pairs": [{"test", "train": places, "similarity"}, ...], the most alike first}
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold} must lie above 0 and be at most 1")
    known: dict[str, int] = {}
    for place, text in enumerate(train_texts):
        known.setdefault(folded(text), place)
    keys = [folded(text) for text in test_texts]
    pairs = [
        {"test": i, "train": known[key], "similarity": 1.0} for i, key in enumerate(keys) if key in known
    ]
    exact, rest = len(pairs), [i for i, key in enumerate(keys) if key not in known]
    places = list(known.values())
    for i, (other, alike) in zip(rest, _nearest(list(known), [keys[i] for i in rest], threshold)):
        if other is not None:
            pairs.append({"test": i, "train": places[other], "similarity": alike})
    pairs.sort(key=lambda pair: (-pair["similarity"], pair["test"]))
    return {
        "threshold": threshold,
        "texts": len(keys),
        "exact": exact,
        "near": len(pairs) - exact,
        "pairs": pairs,
    }


def _nearest(known: list[str], asked: list[str], threshold: float) -> Iterable[tuple[int | None, float]]:
    """For each text asked about: the place of the most alike known one, or None, and how alike it is."""
    if not known or not asked:
        yield from ((None, 0.0) for _ in asked)
        return
    counts = np.zeros(2**CELLS, np.int32)
    for text in known:
        np.add.at(counts, _cells(_stretches(text)), 1)
    sizes, rare = np.zeros(len(known), np.int64), []
    for place, text in enumerate(known):
        marks = _stretches(text)
        sizes[place] = len(marks)
        rare.append(_rarest(marks, counts, threshold))
    owners = np.repeat(np.arange(len(known)), [len(marks) for marks in rare])
    marks = np.concatenate(rare)
    order = np.argsort(marks, kind="stable")
    marks, owners = marks[order], owners[order]
    again = functools.lru_cache(maxsize=1000)(lambda place: _stretches(known[place]))
    for text in asked:
        own = _stretches(text)
        likely = _likely(own, _rarest(own, counts, threshold), marks, owners, sizes, threshold)
        alike = [(_jaccard(own, again(int(place))), -int(place)) for place in likely]
        best, place = max(alike, default=(0.0, 0))
        yield (-place, best) if best >= threshold else (None, best)


def _likely(
    own: np.ndarray,
    rare: np.ndarray,
    marks: np.ndarray,
    owners: np.ndarray,
    sizes: np.ndarray,
    threshold: float,
) -> np.ndarray:
    """Places of the known texts that share enough of these rarest stretches and are of a fitting length."""
    first, last = np.searchsorted(marks, rare, "left"), np.searchsorted(marks, rare, "right")
    many = last - first
    within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    places, shared = np.unique(owners[np.repeat(first, many) + within], return_counts=True)
    fit = np.minimum(sizes[places], len(own)) >= threshold * np.maximum(sizes[places], len(own)) - 1e-9
    fit &= shared >= np.minimum(np.minimum(_k(sizes[places]), _k(len(own))), _need(len(own), threshold))
    places, shared = places[fit], shared[fit]
    return places[np.argsort(-shared, kind="stable")[:LOOKED_AT]]


def _rarest(marks: np.ndarray, counts: np.ndarray, threshold: float) -> np.ndarray:
    """So many of a text's rarest stretches that what is as alike as the threshold shares k of them."""
    order = np.lexsort((marks, counts[_cells(marks)]))
    return marks[order[: len(marks) - _need(len(marks), threshold) + _k(len(marks))]]


def _k(size: Any) -> Any:
    return np.maximum(size // SHARED, LEAST)


def _need(size: int, threshold: float) -> int:
    return math.ceil(threshold * size - 1e-9)


def _stretches(text: str) -> np.ndarray:
    """The distinct stretches of five characters of a folded text, as sorted numbers; a shorter text is one."""
    letters = np.frombuffer(text.ljust(WIDE).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    mixed = np.zeros(len(letters) - WIDE + 1, np.uint64)
    for i in range(WIDE):
        mixed = mixed * MIX + letters[i : len(letters) - WIDE + 1 + i]
    mixed.sort()
    return mixed[np.append(True, mixed[1:] != mixed[:-1])]  # ten times as fast as np.unique here


def _cells(marks: np.ndarray) -> np.ndarray:
    """Where stretches are counted: the upper bits of a product, which depend on all bits of the number."""
    return ((marks * MIX) >> np.uint64(64 - CELLS)).astype(np.int64)


def _jaccard(one: np.ndarray, two: np.ndarray) -> float:
    both = int((two[np.searchsorted(two, one).clip(max=len(two) - 1)] == one).sum())
    return both / (len(one) + len(two) - both)
