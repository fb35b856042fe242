"""Races: intervals and tables, rounds that go on where they were, both sides' jobs; and one race in small."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minibert import data, spec

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))  # as `python benchmarks/train.py` has it

import contestant  # noqa: E402
import harness  # noqa: E402
import jobs  # noqa: E402
import measures  # noqa: E402
import pages  # noqa: E402
import train  # noqa: E402

STEPS = [[9.0, 4, 40, 80, 9.0], [1.0, 4, 40, 80, 2.0], [3.0, 2, 20, 20, 2.0]]


# --- numbers


def test_the_first_step_is_left_out():
    row = {"steps": STEPS, "tokenise": 2.0}
    assert measures.rate(row) == 6 / 4
    assert measures.rate(row, measures.TOKENS) == 60 / 4
    assert measures.rate(row, per=measures.CPU) == 6 / 4
    assert measures.rate(row, tokenise=True) == 6 / 6
    assert measures.step_seconds(row) == 2
    assert measures.padding(row) == 40
    assert measures.rate({"steps": STEPS[:1]}) == 4 / 9  # there is no other


def test_ratios_are_taken_within_rounds_that_both_finished():
    rows = [
        {"name": "a", "round": 1, "x": 6.0},
        {"name": "a", "round": 0, "x": 2.0},
        {"name": "b", "round": 0, "x": 4.0},
        {"name": "b", "round": 1, "error": "it fell"},
        {"name": "b", "round": 2, "x": 1.0},
    ]
    a, b = (measures.by_round(rows, name, lambda row: row["x"]) for name in "ab")
    assert list(a) == [0, 1] and measures.ratios(a, b) == [0.5]
    assert measures.compared(rows, "a", "b", lambda row: row["x"])[0] == 0.5
    assert measures.typical(rows, "a", lambda row: row["x"])[0] == 4


def test_the_median_of_rounds_and_its_interval():
    value, low, high = measures.median([3.0, 1.0, 2.0, 2.5, 1.5])
    assert value == 2 and 1 <= low < 2 < high <= 3
    assert measures.median([2.0] * 5) == (2, 2, 2)
    assert measures.median([2.0])[0] == 2 and math.isnan(measures.median([2.0])[1])
    assert all(map(math.isnan, measures.median([])))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, held = np.random.default_rng(0), {measures.mean: 0, measures.median: 0}
    for _ in range(300):
        drawn = rng.normal(1, 0.1, 7)
        for interval in held:
            _, low, high = interval(drawn) if interval is measures.mean else interval(drawn, 500)
            held[interval] += low <= 1 <= high
    assert 270 < held[measures.mean] <= 297  # 95 % of 300 is 285
    assert 260 < held[measures.median] <= 299


def test_the_mean_is_students():
    value, low, high = measures.mean([1.0, 2.0, 3.0])
    assert value == 2 and high - value == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert low == pytest.approx(4 - high)


def test_differences_are_relative_to_the_other():
    assert measures.differences([1.0, 3.0], [2.0, 3.0]).tolist() == [0.5, 0]


def test_tables():
    assert measures.table(["a", "b"], [[1, "x|y"]]) == "| a | b |\n| --- | --- |\n| 1 | x/y |"
    nan = math.nan
    assert measures.shown((1234.5, 1.0, 2.0), 1) == "1,234.5 (1.0 to 2.0)"
    assert measures.shown((1.5, nan, nan)) == "1.50" and measures.shown((nan, nan, nan)) == "-"


# --- rounds


@pytest.fixture
def race(tmp_path, monkeypatch):
    """A race whose contestants answer at once; each call stands in `asked`, and those in `ill` fail."""
    asked, ill = [], set()

    def measured(module, job, threads):
        asked.append((job["n"], module))
        return {"seconds": 1.0, **({"error": "it fell"} if module in ill else {"ended": "today"})}

    monkeypatch.setattr(harness, "measured", measured)
    monkeypatch.setattr(harness, "machine", lambda: {"processor": "a good one"})

    def start(rounds=2, **settings):
        race = harness.Race(tmp_path / "r.jsonl", {"threads": 1, "rounds": rounds, **settings})
        race.run(lambda n: {"ours": ("a", {"n": n}), "theirs": ("b", {"n": n})}, range(rounds))
        return race

    start.asked, start.ill, start.file = asked, ill, tmp_path / "r.jsonl"
    return start


def test_contestants_take_turns(race):
    assert len(race().rows) == 4
    assert race.asked == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_a_race_goes_on_where_it_was(race):
    race()
    text = race.file.read_text("utf-8")
    race.file.write_text(text[:-5], "utf-8")  # killed as the last row was written
    race.asked.clear()
    race()
    assert race.asked == [(1, "b")]
    assert race.file.read_text("utf-8") == text
    assert len(race(rounds=3).rows) == 6 and race.asked[1:] == [(2, "a"), (2, "b")]
    assert len(race(rounds=2).asked()) == 4, (
        "of a race that was to be longer only the rounds that are asked for"
    )


def test_what_failed_is_told_and_tried_again(race):
    race.ill.add("b")
    ended = race(1)
    assert ended.failures == ["round 0, theirs: it fell"]
    page = ended.write("A race", "no table")
    assert "**Failed:** round 0, theirs: it fell" in page and "a good one" in page
    assert json.loads(race.file.with_suffix(".json").read_text("utf-8"))["failures"]
    race.ill.clear()
    assert not race(1).failures and race.asked == [(0, "a"), (0, "b"), (0, "b")]


def test_rows_of_another_race_are_refused_but_can_be_shown(race):
    race(1)
    with pytest.raises(harness.Refused, match="texts was None, is 9.*--fresh"):
        race(1, texts=9)
    shown = harness.Race(race.file, {"threads": 7}, render=True)
    assert len(shown.run(lambda n: {}, [0])) == 2 and shown.settings["threads"] == 1
    with pytest.raises(harness.Refused, match="no "):
        harness.Race(race.file.with_name("none.jsonl"), {}, render=True)


def test_a_contestant_that_falls_says_its_last_words(capsys):
    row = harness.measured("no_such_contestant", {}, threads=1)
    assert "No module named no_such_contestant" in row["error"]
    assert row["seconds"] > 0 and "No module" in capsys.readouterr().err


def test_what_went_on_beside_a_contestant():
    before = {"all": 100.0, "busy": 50.0, "steal": 1.0, "ours": 10.0}
    after = {"all": 120.0, "busy": 65.0, "steal": 2.0, "ours": 20.0}
    assert harness.meanwhile(before, after) == {"steal": 0.05, "others": 0.25}
    assert harness.meanwhile(None, None) == {"steal": None, "others": None}


# --- jobs


def test_both_sides_read_the_same_texts(tmp_path):
    tables = {
        "task": {"name": "t", "kind": "regression"},
        "data": {"train": "a", "test": "b", "text": "x", "label": "y"},
        "model": {"weights": "all-MiniLM-L6-v2"},
        "train": {"examples": 3, "learning_rate": 3e-5},
    }
    parts = {
        "train": (['with "quotes", commas', "two\nlines", "three"], [1 / 3, 2.0, 3.0]),
        "validation": (["four"], [0.1]),
        "test": (["five"], [5.0]),
    }
    task = jobs.laid_out(tmp_path, spec.parse(tables), parts, dropout=0.0)
    _, job = jobs.ours(tmp_path, task)
    again = data.load_splits(spec.load(job["spec"]), Path)
    for name, (texts, targets) in parts.items():
        part = getattr(again, name)
        assert part.texts == texts and part.targets.tolist() == targets
    assert task.baseline.kind == "none" and task.train.learning_rate == 3e-5 and task.model.dropout == 0


def test_every_race_has_two_sizes_and_a_page():
    assert train.RACES.keys() == train.SIZES.keys() == pages.PAGES.keys()
    for whole, quick in train.SIZES.values():
        assert whole.keys() == quick.keys()


def test_memory_and_time_are_marked():
    clock = contestant.Clock()
    if contestant.memory() is None or not contestant.forget_peak():
        pytest.skip("this system tells no peak of memory that can be put back")
    clock.step(1, 2, 3)
    first, block = contestant.peak(), bytearray(60_000_000)
    block[::4096] = b"x" * len(block[::4096])
    del block
    clock.step(4, 5, 6)
    assert contestant.peak() - first > 40 and [step[1:4] for step in clock.steps] == [[1, 2, 3], [4, 5, 6]]
    most = contestant.peak()
    assert contestant.forget_peak() and contestant.peak() < most


OTHERS = {"transformers", "sentence_transformers", "onnx", "onnxruntime", "openvino", "nncf"}


def test_peers_are_imported_in_their_own_folder_only():
    for path in FOLDER.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        others = {str(name).partition(".")[0] for name in names} & OTHERS
        assert not others or path.parent.name == "peers", (path, others)


@pytest.mark.reference
def test_the_race_of_losses_in_small(minilm, tmp_path):
    for peer in ("transformers", "accelerate"):
        pytest.importorskip(peer, reason="the reference is not installed")
    done = subprocess.run(
        [sys.executable, FOLDER / "train.py", "losses", "--quick", "--threads", "1", "--out", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "train_losses.json").read_text("utf-8"))["found"]
    assert max(found["Trainer"], found["plain loop"]) <= 1e-5
    assert found["micro-batches"] and all(
        max(x["loss"], x["gradient"]) <= 1e-6 for x in found["micro-batches"]
    )
