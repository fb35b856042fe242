"""Parts of made-up data for the tests of the study's checks, and answers to them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from minibert.data.parts import Part
from minibert.data.tables import Table

SUBJECTS = ["river", "house", "market", "doctor", "school", "engine", "garden", "winter", "letter", "music"]


def sentence(rng, place):
    """A text of its own."""
    return f"{place} " + " ".join(rng.choice(SUBJECTS, size=12)) + f" {rng.integers(10**9)}"


def part(name, rng, n, kind="classification", texts=None, targets=None, authors=None):
    """`n` rows that share nothing with any other part, but for what is given."""
    if targets is None:
        targets = (
            rng.normal(size=n) if kind == "regression" else rng.choice(list("aabbc"), size=n).astype(object)
        )
    cells = {
        "text": texts or [sentence(rng, f"{name}{i}") for i in range(n)],
        "author": authors or [f"{name} author {i % 9}" for i in range(n)],
    }
    table = Table(pd.DataFrame(cells, dtype=object), f"{name}.csv", name)
    return Part(name, cells["text"], None, np.asarray(targets), np.arange(n), table)


def three(seed=0, kind="classification"):
    """A sound train, validation and test."""
    rng = np.random.default_rng(seed)
    return [part(name, rng, n, kind) for name, n in (("train", 300), ("validation", 60), ("test", 200))]


def answered(rng, truth, classes=3, right=0.8):
    """Probabilities (n, C) that are as true as they say: right for a share of `right`, by their own sureness."""
    n = len(truth)
    sure = np.clip(rng.normal(right, 0.08, size=n), 0.4, 0.98)
    said = np.where(rng.random(n) < sure, truth, (truth + rng.integers(1, classes, size=n)) % classes)
    rest = np.repeat(((1 - sure) / (classes - 1))[:, None], classes, axis=1)
    rest[np.arange(n), said] = sure
    return rest
