"""What got slower since another run, whatever that day's machine."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from minibert.bench import compare
from minibert.bench.attention import EMPTY
from minibert.errors import DataError


def document(ms, peak=1.0, seed=0, **changes):
    """A run of one row whose rounds lie around `ms`, on a machine of that peak."""
    noise = np.random.default_rng(seed).normal(1, 0.01, 30)
    texts = {"name": "fixed:8", "texts": 2, "tokens": 16, "longest": 8, "mean": 8.0, "padding_share": 0.0}
    row = {"kernel": "sdpa", "heads": 2, "width": 8, "lengths": texts, "dtype": "float32", "dropout": 0.0,
           "direction": "both", **EMPTY, "verdict": "PASS", "rounds": (ms * noise).tolist(), "peak_mem": 100}  # fmt: skip
    return {
        "verb": "attention", "settings": {"caches": "warm", "tokens": 16, "seed": 0}, "rows": [row | changes],
        "conditions": {"cpu": "A", "threads": 2}, "peak": {"float32": {"tflops": peak}, "gbps": 1.0},
    }  # fmt: skip


def change(new, old):
    (cells,), notes = compare.compared(new, old)
    return cells["change"], cells["sure"], notes


def test_slower_and_faster_are_told_with_how_surely():
    old = document(10)
    assert change(document(11, seed=1), old) == ("slower", "100.0%", [])
    assert change(document(9, seed=1), old)[0] == "faster"
    assert change(document(10.1, seed=1), old)[0] == "no change"


def test_a_slower_machine_is_no_slower_kernel():
    assert change(document(20, peak=0.5, seed=1), document(10))[0] == "no change"
    assert change(document(10, peak=2.0, seed=1), document(10))[0] == "slower"


def test_what_broke_comes_first_and_hunger_is_told():
    old, new = document(10), document(10, seed=1)
    other = copy.deepcopy(old["rows"][0]) | {"kernel": "padded"}
    old["rows"].append(other)
    new["rows"].append(other | {"verdict": "FAIL"})
    cells, _ = compare.compared(new, old)
    assert [one["change"] for one in cells] == ["PASS before, FAIL now", "no change"]
    assert change(document(10, peak_mem=120), document(10))[0] == "no change, 1.20 times the memory"
    gone = {"outcome": "error", "why": "x"}
    assert change(document(10, **gone), document(10))[0] == "PASS before, error now"
    assert change(document(10, **gone), document(10, **gone))[0] == "error"


def test_other_conditions_and_rows_alone_are_told():
    old, new = document(10), document(10)
    new["conditions"]["threads"], new["settings"]["caches"] = 4, "flushed before every call"
    new["rows"].append(copy.deepcopy(new["rows"][0]) | {"dropout": 0.1})
    notes = compare.compared(new, old)[1]
    assert notes == [
        "threads differs: 2 before, 4 now",
        "caches differs: warm before, flushed before every call now",
        "1 of 2 rows have no counterpart",
    ]


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "old.json"
    for text in ("", "[]", json.dumps({"verb": "calibrate", "rows": []})):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match="can't be compared with"):
            compare.read(path)
    path.write_text(json.dumps(document(1)), encoding="utf-8")
    assert compare.read(path)["rows"]
