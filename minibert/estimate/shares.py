"""The share of texts that are of a class, and the mean of a number, over a corpus.

In:  said (m,): what the classifier says of every text: whether it is of the class, the probability that it is,
     or a value. coded (n,): the places of the texts that a person coded; truth (n,): what the person said.
Out: Estimate

A share's interval is not value +- 2 standard errors, which fails where a class is rare. The texts that the
classifier calls so and those that it doesn't are two groups; in each the share is a binomial's, with Jeffreys'
interval, and the two are put together by how far each limit is from its share (Zou and Donner 2008, Stat. Med.
27, 1693). The value is the same either way: of yes and no, the corrected share is the sum over groups of the
group's share of all texts times the share of its coded texts that are of the class. With probabilities there
are no groups, and the interval is Wilson's with as many texts as give the variance.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError
from .correction import (
    Fit,
    Interval,
    Sample,
    Z,
    average,
    binomial,
    by_t,
    correct,
    sampled,
    variance,
)

FEW = 5  # coded texts of a class, or not of it, below which no interval is to be trusted
ODD = 4  # standard errors by which the predictions of a random sample are not off


@dataclass(frozen=True)
class Estimate:
    """One number, three times: predictions taken for codes, codes alone, predictions corrected by codes.

    weight   how much the predictions counted, 0 to about 1
    texts    m, and n of them coded
    """

    of: str
    naive: Interval
    coded_only: Interval
    corrected: Interval
    weight: float
    texts: int
    coded: int
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        intervals = ("naive", "coded_only", "corrected")
        return asdict(self) | {name: getattr(self, name)._asdict() for name in intervals}


def share(
    said: np.ndarray,
    coded: np.ndarray,
    truth: np.ndarray,
    *,
    chance: np.ndarray | None = None,
    corpus_only: bool = False,
    of: str = "the class",
) -> Estimate:
    """The share of texts that are of a class.

    said     (m,) bool, or probabilities
    chance   (n,) each coded text's probability of being drawn; all alike where absent
    `corpus_only`: intervals for these very texts, not for the source that they and others come from.
    """
    said, truth = checked(said, coded, truth)
    if not ((said >= 0) & (said <= 1)).all() or not np.isin(truth, (0, 1)).all():
        raise ValueError("said: True and False, or probabilities; truth: True and False")
    sample = sampled(len(said), coded, chance)
    fits = thrice(said, truth, sample)
    codes, _, everywhere = fits
    fixed = correct(*fits, sample, corpus_only)
    value = float(np.clip(fixed.value[0], 0, 1))
    nobody = np.zeros(len(said), bool)
    alone = by_groups(float(codes.value[0]), truth, nobody, sample, corpus_only)
    if fixed.weight[0] == 0:
        corrected = alone
    elif np.isin(said, (0, 1)).all():
        corrected = by_groups(value, truth, said == 1, sample, corpus_only)
    else:
        corrected = Interval(value, *binomial(value, worth(value, float(fixed.variance[0]), sample)))
    taken = float(everywhere.value[0])
    return Estimate(
        of,
        Interval(taken, *binomial(taken, math.inf if corpus_only else len(said))),
        alone,
        corrected,
        float(fixed.weight[0]),
        len(said),
        len(truth),
        (*few(truth, of), *doubts(*fits[1:], sample, of)),
    )


def mean(
    said: np.ndarray,
    coded: np.ndarray,
    truth: np.ndarray,
    *,
    chance: np.ndarray | None = None,
    corpus_only: bool = False,
    of: str = "the mean",
) -> Estimate:
    """The mean of a number; said (m,) and truth (n,) values. The rest as of `share`."""
    said, truth = checked(said, coded, truth)
    if (truth == truth[:1]).all() and len(truth):
        raise DataError(f"all {len(truth)} coded texts have the value {truth[0]:g}: no spread to be seen")
    sample = sampled(len(said), coded, chance)
    fits = thrice(said, truth, sample)
    codes, _, everywhere = fits
    fixed = correct(*fits, sample, corpus_only)
    return Estimate(
        of,
        naive(everywhere, corpus_only)[0],
        plain(codes, sample, corpus_only)[0],
        by_t(fixed.value[0], fixed.variance[0], sample.effective - 2),
        float(fixed.weight[0]),
        len(said),
        len(truth),
        doubts(*fits[1:], sample, of),
    )


def checked(said: np.ndarray, coded: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """said (m,) and truth (n,) as numbers; refused where they can't be what they should."""
    said, truth = np.asarray(said, float), np.asarray(truth, float)
    if said.ndim != 1 or truth.shape != np.shape(coded):
        raise ValueError(
            f"said (m,), coded (n,), truth (n,), not {said.shape}, {np.shape(coded)}, {truth.shape}"
        )
    if not (np.isfinite(said).all() and np.isfinite(truth).all()):
        raise DataError("every prediction and every code must be a finite number")
    return said, truth


def thrice(said: np.ndarray, truth: np.ndarray, sample: Sample) -> tuple[Fit, Fit, Fit]:
    """The mean of the codes, of the coded texts' predictions, of all predictions."""
    near = average(truth, sample.weights), average(said[sample.coded], sample.weights)
    return *near, average(said, np.ones(len(said)))


def plain(codes: Fit, sample: Sample, corpus_only: bool) -> list[Interval]:
    """From the codes alone."""
    used = codes.pull.shape[1]
    spread = variance(codes.pull, codes.pull, sample, used, corpus_only)
    return [by_t(v, s, sample.effective - used) for v, s in zip(codes.value, spread)]


def naive(everywhere: Fit, corpus_only: bool) -> list[Interval]:
    """From the predictions alone, as if they were true. Of these very texts they are a count without a doubt."""
    m, p = everywhere.pull.shape
    spread = 0 * everywhere.value if corpus_only else (everywhere.pull**2).sum(axis=0) / m / (m - p)
    return [by_t(v, s, m - p) for v, s in zip(everywhere.value, spread)]


def by_groups(
    value: float, truth: np.ndarray, group: np.ndarray, sample: Sample, corpus_only: bool
) -> Interval:
    """The interval of a share that is put together from two groups of texts; group (m,) bool."""
    below = above = 0.0
    for one in (False, True):
        here = group[sample.coded] == one
        part = float(np.mean(group == one))
        if not here.any():
            continue
        w, is_so, left_out = sample.weights[here], truth[here], 1 - sample.chance[here]
        p = float(w @ is_so / w.sum())
        spread = float((w**2 * left_out) @ (is_so - p) ** 2 / w.sum() ** 2)
        alike = float((w**2 * left_out).sum() / w.sum() ** 2)
        texts = p * (1 - p) / spread if spread > 0 else 1 / alike if alike > 0 else math.inf
        low, high = binomial(p, texts)
        below += (part * (p - low)) ** 2
        above += (part * (high - p)) ** 2
    coming = 0 if corpus_only else Z**2 * value * (1 - value) / sample.texts
    return Interval(
        value, max(0.0, value - math.sqrt(below + coming)), min(1.0, value + math.sqrt(above + coming))
    )


def worth(value: float, spread: float, sample: Sample) -> float:
    """As how many texts drawn at random, and coded, tell so much of a share."""
    if spread > 0 and 0 < value < 1:
        return value * (1 - value) / spread
    return sample.effective if (sample.chance < 1).any() else math.inf


def few(truth: np.ndarray, of: str) -> tuple[str, ...]:
    """A note where hardly any coded text is of the class, or hardly any is not."""
    yes = int(truth.sum())
    least, words = (yes, "are") if yes <= len(truth) - yes else (len(truth) - yes, "are not")
    if least >= FEW:
        return ()
    return (
        f"{of}: only {least} of {len(truth)} coded texts {words} so; under {FEW} its intervals are not to be "
        "trusted: code more.",
    )


def doubts(said: Fit, everywhere: Fit, sample: Sample, of: str) -> tuple[str, ...]:
    """Notes on coded texts that don't look drawn as they should have been."""
    out = []
    gap = abs(float(said.value[0] - everywhere.value[0]))
    error = math.sqrt(variance(said.pull, said.pull, sample, 1, corpus_only=True)[0])
    if gap > ODD * error and gap > 1e-9:
        out.append(
            f"{of}: by the classifier {said.value[0]:.3g} of the coded texts, {everywhere.value[0]:.3g} of all, "
            "too far apart for texts drawn at random: if they were chosen otherwise, nothing here holds."
        )
    return (*out, *miscounted(sample))


def miscounted(sample: Sample) -> tuple[str, ...]:
    """A note on sampling probabilities by which the coded texts stand for many more texts than there are, or fewer."""
    stand, error = (1 / sample.chance).sum(), math.sqrt(((1 - sample.chance) / sample.chance**2).sum())
    if abs(stand - sample.texts) <= ODD * error + 1e-9 * sample.texts:
        return ()
    return (
        f"by their sampling probabilities the coded texts stand for {stand:,.0f} texts, and there are "
        f"{sample.texts:,}: are these the probabilities? Only their ratios were used.",
    )
