"""What differs between the validation and the test part: looked at where a model does far worse on test.

In:  what is known of the texts of both, a row a text.   Out: sentences, one for each thing that differs beyond chance.

Texts are taken as independent draws. Shares are compared by the usual test of two proportions, numbers by
Kolmogorov and Smirnov's, both in their large-sample form; a difference counts from p = 0.001, divided by how many
labels were compared. NumPy only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

UNUSUAL = 0.001  # p of a difference that is told: of runs whose parts are alike, 1 in 100 is told one
UNKNOWN = (
    0.02  # share of tokens from which the tokenizer does not know a language (as in B12: a cased model fed
)
# lower case stays below it) ...
UNLIKE = 2.0  # ... where it is at least so many times that of validation
APART = 1.2  # times as long, as many words new: of many texts a smaller difference is beyond chance, too, and no cause
MOST_TOLD = 3  # labels that are named


@dataclass(frozen=True)
class Side:
    """The texts of one part.

    tokens   (n,) tokens of each, before any cut      cut     (n,) bool, whether the model misses some of it
    new      (n,) share of its tokens that no training text has
    shared   (n,) bool, whether the same text stands in train
    unknown  share of all tokens that the tokenizer does not know
    answers  the values (n,) of a regression, or of each text the set of its labels
    """

    tokens: np.ndarray
    cut: np.ndarray
    new: np.ndarray
    shared: np.ndarray
    unknown: float
    answers: Any


def differences(validation: Side, test: Side) -> list[str]:
    """What is unusual about two parts that should be alike, and may cost test its score; one sentence where
    nothing is."""
    both = validation, test
    out = []
    if p_shares(*(side.shared for side in both)) < UNUSUAL and validation.shared.mean() > test.shared.mean():
        out.append(
            f"Texts that stand in train, too: {of(validation.shared)} on validation, {of(test.shared)} on test."
        )
    long = [float(np.median(side.tokens)) for side in both]
    if p_numbers(*(side.tokens for side in both)) < UNUSUAL and max(long) >= APART * min(long):
        out.append(
            f"Lengths differ: a median of {long[0]:,.0f} tokens on validation, {long[1]:,.0f} on test."
        )
    if p_shares(*(side.cut for side in both)) < UNUSUAL and test.cut.mean() > validation.cut.mean():
        out.append(f"Texts that are cut: {of(validation.cut)} on validation, {of(test.cut)} on test.")
    new = [float(side.new.mean()) for side in both]
    if p_numbers(*(side.new for side in both)) < UNUSUAL and new[1] >= APART * new[0]:
        out.append(
            f"Words are new: of a text’s tokens, {share(new[0])} on validation and "
            f"{share(new[1])} on test stand in no training text."
        )
    if test.unknown >= UNKNOWN and test.unknown >= UNLIKE * validation.unknown:
        out.append(
            f"The tokenizer does not know {share(test.unknown)} of the tokens on test, {share(validation.unknown)} on validation."
        )
    out += targets(*(side.answers for side in both))
    return out or [
        "Texts that stand in train, lengths, cuts, words that are new or unknown, and the mix of labels are alike on both: look "
        "at the labels themselves, whether test has them by the same rules, and each beside its text."
    ]


def targets(validation: Any, test: Any) -> list[str]:
    """Labels, or values, that one part has more of."""
    if isinstance(validation, np.ndarray):
        if p_numbers(validation, test) >= UNUSUAL:
            return []
        return [
            f"Values differ: a median of {np.median(validation):.3g} on validation, {np.median(test):.3g} on test."
        ]
    counts = [Counter(label for labels in part for label in labels) for part in (validation, test)]
    every = sorted(counts[0] | counts[1])
    found = []
    for label in every:
        has = [np.array([label in labels for labels in part], bool) for part in (validation, test)]
        p = p_shares(*has)
        if p < UNUSUAL / len(every):
            found.append((p, f"“{label}” {of(has[0])} on validation, {of(has[1])} on test"))
    found.sort()
    more = f"; and {len(found) - MOST_TOLD} more" if found[MOST_TOLD:] else ""
    return (
        [f"The mix of labels differs: {'; '.join(told for _, told in found[:MOST_TOLD])}{more}."]
        if found
        else []
    )


def p_shares(one: np.ndarray, other: np.ndarray) -> float:
    """How probable shares at least so unlike are where both are draws of one: (n,) and (m,) bool."""
    both, n, m = np.concatenate([one, other]).mean(), len(one), len(other)
    error = math.sqrt(both * (1 - both) * (1 / n + 1 / m))
    return math.erfc(abs(one.mean() - other.mean()) / error / math.sqrt(2)) if error else 1.0


def p_numbers(one: np.ndarray, other: np.ndarray) -> float:
    """How probable distributions at least so far apart are where both are draws of one: (n,) and (m,)."""
    at = np.unique(np.concatenate([one, other]))
    below = [np.searchsorted(np.sort(x), at, side="right") / len(x) for x in (one, other)]
    far = np.abs(below[0] - below[1]).max() * math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    return min(1.0, 2 * math.exp(-2 * far**2))


def of(which: np.ndarray) -> str:
    """12 %."""
    return share(which.mean())


def share(x: float) -> str:
    """12 %, 1.4 %."""
    return f"{100 * x:.0f} %" if x >= 0.1 or x == 0 else f"{100 * x:.1f} %"


def new_shares(ids: Sequence[Sequence[int]], known: set[int]) -> np.ndarray:
    """(n,) of each list of token ids the share that is not `known`."""
    return np.array([sum(i not in known for i in some) / max(len(some), 1) for some in ids])
