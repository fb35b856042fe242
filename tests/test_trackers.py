"""Trackers: what TensorBoard reads is what history.jsonl says, once each, and none of it can end a run."""

# ruff: noqa: F811  (a fixture from elsewhere)
from __future__ import annotations

import math
import sys
import time
import typing
from collections import defaultdict

import pytest

from minibert import spec, trackers
from minibert.errors import ConfigError, EnvironmentProblem
from minibert.run import run

from .test_resume import POSIX, crossed, function_of, history, killed_in, short
from .test_run import task, weights  # noqa: F401  fixture

ON = {"trackers": ["tensorboard"]}
CURVES = ("loss", "learning_rate", "grad_norm")


@pytest.fixture
def package():
    """Where the extra isn't installed, what needs it is skipped."""
    return pytest.importorskip("tensorboard", reason="tensorboard is in the extra of that name")


def drawn(folder):
    """{tag: [(step, value), ...]} as TensorBoard itself reads a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def told(out, fold=0):
    """The same of history.jsonl, for each of the two runs."""
    curves = {"step": defaultdict(list), "evaluation": defaultdict(list)}
    for one in history(out):
        if one.get("fold", 0) == fold:
            for name in one.keys() - set(trackers.PLACES):
                rows = one[name].items() if isinstance(one[name], dict) else [(None, one[name])]
                for row, value in rows:
                    curves[one["event"]][f"{name}/{row}" if row else name].append((one["step"], value))
    return curves["step"], curves["evaluation"]


def alike(found, wanted):
    """The same steps, each once, and the same values in float32. Speeds, a clock's, are not compared."""
    speeds = {name for name in found if "per_second" in name}
    assert found.keys() - speeds == wanted.keys()
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        for (_, ours), (_, theirs) in zip(found[name], points):
            assert math.isclose(ours, theirs, rel_tol=1e-6), name
    return speeds


def test_the_names_are_those_of_the_spec():
    facts = next(f for f in typing.get_type_hints(spec.Train) if f == "trackers")
    field = spec.Train.__dataclass_fields__[facts]
    assert field.metadata["choices"] == tuple(trackers.TRACKERS)


def test_an_unknown_tracker_is_refused(weights, tmp_path):
    with pytest.raises(ConfigError, match='tensorbord.*did you mean "tensorboard"'):
        task(tmp_path, weights, train={"trackers": ["tensorbord"]})


def test_a_missing_package_is_told_before_anything_begins(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(EnvironmentProblem, match=r"tensorboard.*\n.*minibert\[tensorboard\]"):
        run(short(tmp_path, weights, **ON), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_number_of_history_is_drawn(weights, tmp_path, package):
    run(short(tmp_path, weights, **ON), tmp_path / "out")
    steps, evaluations = told(tmp_path / "out")
    assert {*CURVES, "layer_norms/layers.0"} <= steps.keys()
    assert {"loss", "accuracy", "macro_f1"} <= evaluations.keys()
    speeds = alike(drawn(tmp_path / "out" / "tensorboard" / "train"), steps)
    assert speeds == {"texts_per_second", "tokens_per_second"}
    assert not alike(drawn(tmp_path / "out" / "tensorboard" / "validation"), evaluations)


@POSIX
@pytest.mark.parametrize(
    "where",
    [
        ("minibert.fit.log_step", 15, False),
        pytest.param(("minibert.fit.validate", 2, True), marks=pytest.mark.slow),
    ],
    ids=["step", "epoch"],
)
def test_a_run_that_goes_on_draws_no_step_twice(where, weights, tmp_path, package):
    one, out = short(tmp_path, weights, **ON), tmp_path / "out"
    dotted, at, before = where
    killed_in(*function_of(dotted), at, lambda: run(one, out), before)
    written = drawn(out / "tensorboard" / "train")["loss"]
    assert [step for step, _ in written] == list(range(1, len(told(out)[0]["loss"]) + 1)), "none is lost"
    time.sleep(1.1)  # TensorBoard reads a run's files in the order of the seconds they were begun in
    run(one, out, resume=True)
    for stream, wanted in zip(("train", "validation"), told(out)):
        alike(drawn(out / "tensorboard" / stream), wanted)


def test_each_fold_has_its_own(weights, tmp_path, package):
    run(crossed(tmp_path, weights, **ON), tmp_path / "out")
    for fold in (1, 2, 3):
        folder = tmp_path / "out" / "tensorboard" / f"fold-{fold}"
        for stream, wanted in zip(("train", "validation"), told(tmp_path / "out", fold)):
            alike(drawn(folder / stream), {k: v for k, v in wanted.items() if k != "fold"})


@pytest.mark.parametrize("name", ["event", "close"])
def test_one_that_fails_is_told_once_and_ends_nothing(name, weights, tmp_path, monkeypatch, capsys, package):
    calls = []

    def fails(*_):
        calls.append(1)
        raise OSError("no room")

    monkeypatch.setattr(trackers.TensorBoard, name, fails)
    assert run(short(tmp_path, weights, **ON), tmp_path / "out").status == "completed"
    assert capsys.readouterr().err.count("no room") == (name == "event") and len(calls) == 1
    assert len(told(tmp_path / "out")[0]["loss"]) == 36


def test_an_overwritten_run_takes_its_curves_with_it_and_nothing_else(weights, tmp_path, package):
    one, out = short(tmp_path, weights, epochs=1, **ON), tmp_path / "out"
    run(one, out)
    (out / "tensorboard" / "train" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="thesis.txt"):
        run(one, out, overwrite=True)
    (out / "tensorboard" / "train" / "thesis.txt").unlink()
    run(task(tmp_path, weights, train={"epochs": 1}), out, overwrite=True)
    assert not (out / "tensorboard").exists()
