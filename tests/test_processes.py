"""What a single process is asked, and how several would share: pure functions."""

from __future__ import annotations

import numpy as np
import torch

from minibert.batch import by_tokens
from minibert.processes import ALONE, share


def test_texts_are_shared_by_tokens():
    assert share([5, 9, 3, 4], 2) == [[1, 2], [0, 3]]
    assert share([7], 3) == [[0], [], []]
    rng = np.random.default_rng(0)
    for processes_ in (2, 3, 7):
        sizes = rng.integers(1, 128, 32).tolist()
        shares = share(sizes, processes_)
        assert sorted(i for places in shares for i in places) == list(range(32))
        loads = [sum(sizes[i] for i in places) for places in shares]
        assert max(loads) - min(loads) <= max(sizes)
        assert share(sizes, processes_) == shares


def test_a_single_process_has_everything_and_every_sum_is_what_it_was():
    sizes, some = [3, 9, 4, 30], torch.tensor([1.5, 2.0])
    assert ALONE.groups(sizes, 12) == [(places, True) for places in by_tokens(sizes, 12)]
    assert ALONE.first and ALONE.size == 1 and not ALONE.shards
    assert (
        ALONE.sum(some) is some and ALONE.part(some, None) is some and ALONE.join("loss", None, ()) == "loss"
    )
    assert ALONE.whole({"a": some}) == {"a": some} and ALONE.as_first({"loss": 2.0}) == {"loss": 2.0}
    assert [float(n) for n in ALONE.norms([some])] == [2.5]
    with ALONE.summing(True), ALONE.calling(), ALONE.saving(None):
        ALONE.wait(steps=1)
    assert ALONE.facts() == {"processes": 1}
