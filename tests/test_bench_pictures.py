"""Pictures of results: everything that is right is drawn, nothing else is, and the page holds all rows."""

from __future__ import annotations

import copy
import re

import pytest

from minibert.bench import page, pictures, table

KERNELS = {"native": (1.0, 1.0), "sdpa": (1.6, 1.1), "padded": (2.5, 1.3), "reference": (6.0, 2.0)}
LENGTHS = [
    ("fixed:128", 128, 0.0),
    ("fixed:1024", 1024, 0.0),
    ("uniform:128", 127, 0.5),
    ("zipf:1024", 1020, 0.85),
]


def rows():
    """Made rows of four kernels: `factor` times as slow as the fastest, memory with the power `slope` of the length."""
    for name, (factor, slope) in KERNELS.items():
        for lengths, longest, padding in LENGTHS:
            for direction, cost in (("forward", 1.0), ("backward", 2.5)):
                ms = factor * cost * longest / 100 * (1 + (padding if name == "padded" else 0))
                flops = cost * 4 * 4096 * longest * 384 * 0.6
                yield {
                    "kernel": name, "heads": 12, "width": 32, "dtype": "float32", "dropout": 0.1, "direction": direction,
                    "lengths": {"name": lengths, "texts": 9, "tokens": 4096, "longest": longest, "mean": longest / 2, "padding_share": padding},
                    "outcome": "ok", "why": "", "latency": {"p20": ms * 0.9, "p50": ms, "p80": ms * 1.2, "min": ms * 0.8, "cv": 0.1, "n": 20},
                    "walltime": 1.0, "flops": flops, "tflops": flops / ms / 1e9, "peak_share": flops / ms / 1e9 / 0.2, "bytes": 4 * 4096 * 384 * 4,
                    "gbps": 1.0, "peak_mem": 1e5 * longest**slope, "compile_time": 0.0, "mask_build": 0.0, "verdict": "PASS", "label": "",
                    "errors": {"output": 0.9, "dq": 1.1, "dk": 1.0, "dv": 0.8}, "baseline": "sdpa", "rounds": [ms] * 8,
                    "speedup": {"value": 1.6 / factor, "low": 1.5 / factor, "high": 1.7 / factor},
                }  # fmt: skip


@pytest.fixture
def results():
    return {
        "minibert": "0", "verb": "attention", "settings": {"rounds": 8}, "conditions": {"cpu": "made <up>", "flags": ["avx2"]},
        "peak": {"float32": {"tflops": 0.2}, "gbps": 20.0}, "rows": list(rows()),
    }  # fmt: skip


@pytest.fixture
def steps():
    rate = {"p20": 900.0, "p50": 1000.0, "p80": 1100.0}
    one = {"outcome": "ok", "why": "", "error": 1e-6, "verdict": "PASS", "baseline": "naive", "rounds": [1.0] * 5,
           "speedup": {"value": 1.0, "low": 0.9, "high": 1.1}}  # fmt: skip
    names = [("naive", "ours"), ("packed", "ours"), ("transformers", "peer"), ("products", "ceiling")]
    found = [
        {**one, "step": name, "what": f"what {name} does", "kind": kind, "share_of_ceiling": 0.2 * (i + 1),
         "tokens_per_second": {k: v * (i + 1) for k, v in rate.items()}}
        for i, (name, kind) in enumerate(names)
    ]  # fmt: skip
    return {"minibert": "0", "verb": "encoder", "settings": {}, "conditions": {"cpu": "made up"}, "peak": {}, "rows": found}  # fmt: skip


def words(figure):
    """Every text in a figure."""
    from matplotlib.text import Text

    return "\n".join(found.get_text() for found in figure.findobj(Text))


def lines(axis):
    return {
        line.get_label(): list(zip(*line.get_data()))
        for line in axis.get_lines()
        if line.get_label()[0] != "_"
    }


def test_speed_has_a_panel_for_each_direction_and_kind_of_lengths(results):
    figure = pictures.speed(results)
    titles = [axis.get_title("left") for axis in figure.axes]
    assert titles == [
        f"{way}, {kind} lengths" for way in ("forward", "backward") for kind in ("equal", "ragged")
    ]
    drawn = lines(figure.axes[0])
    assert drawn.keys() == KERNELS.keys()
    row = results["rows"][0]
    assert drawn["native"][0] == (128, pytest.approx(row["tflops"] * 1e3)), (
        "GFLOP/s where no kernel has a TFLOP/s"
    )


def test_memory_tells_the_slopes(results):
    assert "native 1.0, sdpa 1.1, padded 1.3, reference 2.0" in re.sub(
        r"\s+", " ", words(pictures.memory(results))
    )


def test_what_is_wrong_or_failed_is_named_and_not_drawn(results):
    for row in results["rows"]:
        if row["kernel"] == "native":
            row |= {"verdict": "FAIL", "why": "dq is 3 times as wrong", "speedup": None}
        if row["kernel"] == "padded":
            row |= {"outcome": "out_of_memory", "why": "1 GB", "latency": None, "tflops": None, "peak_mem": None,
                    "errors": None, "verdict": "", "speedup": None, "bytes": None}  # fmt: skip
    assert lines(pictures.speed(results).axes[0]).keys() == {"sdpa", "reference"}
    assert "sdpa\n3.75 x" in words(pictures.best(results)) and "native" not in words(pictures.best(results))
    assert pictures.left_out(results) == [
        "native (8 x): FAIL: dq is 3 times as wrong", "padded (8 x): out_of_memory: 1 GB"
    ]  # fmt: skip
    assert "native" in words(pictures.errors(results)), "how wrong it is stands where errors are"


def test_the_lead_is_the_median_within_rounds(results):
    some = [
        row
        for row in results["rows"]
        if row["lengths"]["name"] == "fixed:128" and row["direction"] == "forward"
    ]
    fast, slow = (next(row for row in some if row["kernel"] == name) for name in ("native", "sdpa"))
    fast["rounds"], slow["rounds"] = [1.0, 10.0, 2.0], [3.0, 20.0, 8.0]
    assert pictures.times(slow, fast) == 3.0
    assert "native\n3.00 x" in words(pictures.best(results))


def test_the_winner_and_its_lead(results):
    assert words(pictures.best(results)).count("native\n1.60 x") == 8


def test_padding_is_shown_for_texts_of_one_longest(results):
    for row in results["rows"]:
        row["lengths"]["name"] = "fixed:128" if row["lengths"]["padding_share"] == 0 else "uniform:128"
        row["lengths"]["longest"] = 128
    figure = pictures.padding(results)
    assert [at for at, _ in lines(figure.axes[0])["native"]] == [0.0, 0.5, 0.85]
    rate = lines(figure.axes[0])["native"][0][1]
    first = [r for r in results["rows"] if r["kernel"] == "native" and r["direction"] == "forward"]
    assert rate == pytest.approx(sum(1e3 * 4096 / row["latency"]["p50"] for row in first[:2]) / 2)
    results["rows"][0]["lengths"]["name"] = "csv:a.csv:Text"
    assert pictures.padding({**results, "rows": results["rows"][:1]}) is None


def test_nothing_to_draw_is_none(results):
    empty = {**results, "rows": []}
    assert all(picture.draw(empty) is None for picture in pictures.PICTURES["attention"])
    one = {**results, "rows": results["rows"][:1]}
    drawn = [p.name for p in pictures.PICTURES["attention"] if p.draw(one) is not None]
    assert drawn == ["roofline", "errors"], "of one length there is no curve"


@pytest.mark.slow
def test_the_page_has_every_picture_row_and_condition(results, tmp_path):
    path = page.write(copy.deepcopy(results), table.lines(results), tmp_path)
    text = path.read_text("utf-8")
    names = {picture.name for picture in pictures.PICTURES["attention"]}
    assert {file.stem for file in tmp_path.glob("*.png")} == names
    assert text.count("data:image/png;base64,") == len(names)
    assert text.count("<tr>") == 1 + len(results["rows"])
    assert "made &lt;up&gt;" in text and "http:" not in text and "https:" not in text


def test_a_column_in_which_nothing_stands_is_left_out():
    lines = [{"kernel": "a", "peak_mem": "-", "": ""}, {"kernel": "b", "peak_mem": "-", "": "why"}]
    assert page.filled(lines) == [{"kernel": "a", "": ""}, {"kernel": "b", "": "why"}]
    assert page.filled([]) == []


def test_the_waterfall(steps, tmp_path):
    figure = pictures.waterfall(steps)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "naive",
        "packed",
        "transformers",
    ]
    assert "2,000, 40 %" in words(figure) and "matrix products alone" in words(figure)
    assert "what packed does" in page.write(
        steps, [{"step": row["step"], "what": row["what"]} for row in steps["rows"]], tmp_path
    ).read_text("utf-8")
