"""The bench from its settings to its files: what fails is typed, what is wrong gets no speed-up."""

from __future__ import annotations

import csv
import json
import math

import pytest
from typer.testing import CliRunner

from minibert import kernels
from minibert.bench import attention, conditions, errors, table, work
from minibert.bench.attention import Settings, run
from minibert.cli import app
from minibert.errors import ConfigError

KERNELS = """
import os
import torch
from minibert import kernels
from minibert.kernels.reference import reference

ABLE = {"devices": ("cpu",), "dropout": "", "gradients": True}

@kernels.register("fast", dtypes=kernels.FLOATS, **ABLE)
def fast(q, k, v, layout, *, scale, dropout=None):
    return v + 0 * (q + k)  # wrong

class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return 1.01 * grad

@kernels.register("backwards", dtypes=kernels.FLOATS, **ABLE)
def backwards(q, k, v, layout, *, scale, dropout=None):
    return reference(Wrong.apply(q), k, v, layout, scale=scale)

@kernels.register("failing", dtypes=kernels.FLOATS, **ABLE)
def failing(q, k, v, layout, *, scale, dropout=None):
    raise ValueError("no luck\\nat all")

@kernels.register("hungry", dtypes=kernels.FLOATS, **ABLE)
def hungry(q, k, v, layout, *, scale, dropout=None):
    return q + torch.empty(2**50)

@kernels.register("double", dtypes=(torch.float64,), **ABLE)
def double(q, k, v, layout, *, scale, dropout=None):
    return q

@kernels.register("holding", dtypes=kernels.FLOATS, **ABLE)
def holding(q, k, v, layout, *, scale, dropout=None):
    torch.zeros(2**24)
    return reference(q, k, v, layout, scale=scale)
holding.label = lambda call: "holds 64 MiB" if callable(call) else ""

@kernels.register("killed", dtypes=kernels.FLOATS, **ABLE)
def killed(q, k, v, layout, *, scale, dropout=None):
    os.kill(os.getpid(), 9)

@kernels.register("ending", dtypes=kernels.FLOATS, **ABLE)
def ending(q, k, v, layout, *, scale, dropout=None):
    os._exit(3)
"""
SMALL = {
    "shapes": ((2, 8),), "lengths": ("zipf:16",), "tokens": 64, "rounds": 6, "warm": 0.0, "baseline": "reference",
}  # fmt: skip


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of bad kernels, a registry that forgets them, and short work."""
    monkeypatch.setattr(kernels, "KERNELS", dict(kernels.KERNELS))
    monkeypatch.setattr(kernels, "choose_cached", {})
    monkeypatch.setattr(work, "SPELL", 0.005)
    monkeypatch.setitem(work.PRODUCTS, "cpu", ((64, 64, 64),))
    monkeypatch.setattr(conditions, "check_idle", lambda device, anyway: [])
    path = tmp_path / "mine.py"
    path.write_text(KERNELS, encoding="utf-8")
    return path


@pytest.fixture
def registered(file):
    kernels.register_file(file)


def rows_of(document):
    return {(row["kernel"], row["direction"]): row for row in document["rows"]}


def test_what_is_wrong_however_fast_fails_and_gets_no_speedup(registered):
    document = run(Settings(("fast", "backwards", "sdpa"), memory=False, **SMALL))
    rows = rows_of(document)
    assert len(rows) == 12  # the baseline is added
    for direction in attention.DIRECTIONS:
        for name in ("fast", "backwards"):
            row = rows[name, direction]
            assert (row["outcome"], row["verdict"], row["speedup"]) == ("ok", "FAIL", None)
            assert table.cells(row)["verdict"] == "FAIL" and table.cells(row)["speedup"] == "-"
        assert (
            rows["sdpa", direction]["verdict"] == "PASS" and rows["sdpa", direction]["speedup"]["value"] > 0
        )
        assert rows["reference", direction]["speedup"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    found = rows["backwards", "forward"]["errors"]
    assert list(found) == ["output", "dq", "dk", "dv"] and found["output"] <= 1 < 2 < found["dq"]
    assert max(found["dk"], found["dv"]) <= 1


@pytest.mark.slow
def test_a_wrong_baseline_gives_no_speedups(registered):
    rows = rows_of(run(Settings(("sdpa",), memory=False, **SMALL | {"baseline": "fast"})))
    assert all(row["speedup"] is None for row in rows.values())


def test_what_fails_is_typed_and_says_why(registered):
    rows = rows_of(
        run(Settings(("failing", "hungry", "double", "sdpa"), directions=("both",), memory=False, **SMALL))
    )
    told = {name: (row["outcome"], row["why"]) for (name, _), row in rows.items()}
    assert told["failing"] == ("error", "ValueError: no luck")
    assert told["hungry"][0] == "out_of_memory" and "memory" in told["hungry"][1]
    assert told["double"] == ("unsupported", "has no float32")
    assert told["sdpa"] == told["reference"] == ("ok", "")
    assert rows["failing", "both"]["speedup"] is None and rows["failing", "both"]["latency"] is None
    assert table.cells(rows["failing", "both"])["verdict"] == "error"


@pytest.mark.slow
def test_a_row_has_all_that_it_promises(registered, tmp_path):
    document = run(Settings(("sdpa", "native"), dropouts=(0.1,), memory=False, **SMALL))
    table.write(document, tmp_path)
    read = json.loads((tmp_path / "attention.json").read_text("utf-8"))
    assert list(read) == ["minibert", "verb", "settings", "conditions", "peak", "measured", "rows"]
    row = next(r for r in read["rows"] if (r["kernel"], r["direction"]) == ("sdpa", "backward"))
    about = ["kernel", "heads", "width", "lengths", "dtype", "dropout", "direction"]
    assert list(row) == about + list(attention.EMPTY)
    assert list(row["lengths"]) == ["name", "texts", "tokens", "longest", "mean", "padding_share"]
    assert list(row["latency"]) == ["p20", "p50", "p80", "min", "cv", "n"] and row["latency"]["n"] == 6
    assert len(row["rounds"]) == 6 and row["latency"]["min"] == min(row["rounds"])
    seconds = row["latency"]["p50"] / 1e3
    assert row["tflops"] == pytest.approx(row["flops"] / seconds / 1e12)
    assert row["peak_share"] == pytest.approx(row["tflops"] / read["peak"]["float32"]["tflops"])
    assert row["gbps"] == pytest.approx(row["bytes"] / seconds / 1e9)
    assert row["label"] == "errors without dropout" and row["baseline"] == "reference"
    with open(tmp_path / "attention.csv", encoding="utf-8", newline="") as text:
        flat = list(csv.DictReader(text))
    assert len(flat) == len(read["rows"]) and {"latency.p50", "errors.dq", "speedup.low"} <= set(flat[0])
    assert len(table.footnotes(document)) == 3 and len(table.lines(document)) == len(flat)


@pytest.mark.slow
def test_memory_is_that_of_one_call_in_a_process_of_its_own(file):
    """What would end this process ends its own."""
    names = ("holding", "reference", "killed", "ending")
    rows = rows_of(run(Settings(names, directions=("forward",), file=file, **SMALL)))
    assert (
        rows["holding", "forward"]["peak_mem"]
        > 0.95 * 2**26
        > 2**22
        > rows["reference", "forward"]["peak_mem"]
    )
    assert rows["holding", "forward"]["label"] == "holds 64 MiB"
    assert rows["killed", "forward"]["outcome"] == "out_of_memory"
    assert (
        rows["ending", "forward"]["outcome"] == "error" and "ended with 3" in rows["ending", "forward"]["why"]
    )


def test_words_that_mean_nothing_are_refused():
    assert attention.shapes("12x32, 16x64") == ((12, 32), (16, 64)) and attention.shares("0,0.1") == (
        0.0,
        0.1,
    )
    for text in ("", "12", "12x", "x3", "axb"):
        with pytest.raises(ConfigError, match="--shapes"):
            attention.shapes(text)
    with pytest.raises(ConfigError, match="--dropout"):
        attention.shares("some")
    for wrong, words in (
        ({"kernels": ("spda",)}, "no kernel 'spda'; did you mean \"sdpa\""),
        ({"baseline": "none"}, "no kernel 'none'"),
        ({"dtypes": ("half",)}, "dtype 'half'"),
        ({"directions": ("foreward",)}, 'did you mean "forward"'),
        ({"dropouts": (1.0,)}, "--dropout"),
        ({"shapes": ((0, 8),)}, "--shapes"),
    ):
        with pytest.raises(ConfigError, match=words):
            Settings(**wrong).checked()


@pytest.mark.slow
def test_the_verb_prints_a_table_writes_files_and_compares(file, tmp_path):
    file.write_text(KERNELS[: KERNELS.index("class Wrong")], encoding="utf-8")  # "fast" alone
    words = ["bench", "attention", "--kernels", "sdpa", "--shapes", "2x8", "--lengths", "zipf:16", "--tokens", "64",
             "--rounds", "6", "--seconds", "0", "--direction", "forward", "--no-memory"]  # fmt: skip
    done = CliRunner().invoke(app, [*words, "--kernel-file", str(file), "--out", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    (fast,) = [line for line in done.stdout.splitlines() if line.startswith("fast ")]
    assert "FAIL" in fast and fast.rstrip().endswith("-") and "peak, measured in this run" in done.stdout
    done = CliRunner().invoke(app, [*words, "--compare", str(tmp_path / "a" / "attention.json")])
    assert done.exit_code == 0 and "time now / before" in done.stdout


@pytest.mark.slow
def test_what_was_measured_before_an_interruption_is_kept(file, tmp_path, monkeypatch):
    file.write_text(KERNELS[: KERNELS.index("class Wrong")], encoding="utf-8")
    asked = []

    def stopped(cases, settings, measured=attention.measured):
        asked.append(cases)
        if len(asked) % 2 == 0:
            raise KeyboardInterrupt
        return measured(cases, settings)

    monkeypatch.setattr(attention, "measured", stopped)
    words = ["bench", "attention", "--kernels", "sdpa", "--shapes", "2x8,2x16", "--lengths", "zipf:16", "--tokens",
             "64", "--rounds", "6", "--seconds", "0", "--direction", "forward", "--no-memory"]  # fmt: skip
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "a")])
    assert done.exit_code == 130 and "kept is what 1 of 2 gave" in done.stderr
    found = json.loads((tmp_path / "a" / "attention.json").read_text("utf-8"))
    assert found["measured"] == [1, 2] and {row["width"] for row in found["rows"]} == {8}
    said = "nterrupted: 1 of 2 groups of cases were measured"
    assert f"i{said}" in done.stdout and f"I{said}" in (tmp_path / "a" / "attention.html").read_text("utf-8")


def test_quick_asks_what_auto_would():
    quick = Settings().quick()
    assert set(quick.kernels) <= set(kernels.DROPPING) and {"sdpa", "padded", "reference"} <= set(
        quick.kernels
    )
    assert Settings(("tiled",)).quick().kernels == ("tiled",)


def test_errors_of_long_texts_are_those_of_their_beginning():
    assert errors.capped((5, 11, 2), heads=4) == (5, 11, 2)
    room = errors.CAP // (8 * 12)
    assert errors.capped((8192, 10), heads=12) == (int(room**0.5),)
    taken = errors.capped((1024,) * 100, heads=12)
    assert sum(n * n for n in taken) <= room and set(taken[:-1]) == {1024}


def test_a_nan_fails_and_is_the_worst_error():
    assert errors.verdict({"output": math.nan}) == "FAIL" and errors.verdict({}) == ""
    assert errors.verdict({"output": 2.0}) == "PASS" and errors.verdict({"output": 2.1}) == "FAIL"
    assert math.isnan(table.worst_error({"errors": {"output": 1.0, "dq": None}}))
