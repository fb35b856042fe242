"""What is measured on a task's own texts is told, and changes nothing."""

from __future__ import annotations

import csv

import pytest
import torch
from typer.testing import CliRunner

from minibert import speed
from minibert.cli import app
from minibert.errors import ConfigError, OutOfMemory
from minibert.run import look_ahead
from minibert.spec import parse
from minibert.speed import Explained, Trial, Tuning, explain, explained_words, tune, tuning_words

from .helpers import write_model


@pytest.fixture
def ready(tmp_path):
    """A small task on a toy model: task, splits, model, encoded training texts."""
    write_model(tmp_path / "weights")
    for name, count in (("train", 30), ("test", 9)):
        rows = [(("the cat sat", "a dog ran on", "the mat")[i % 3] + " the" * (i % 7), "xyz"[i % 3]) for i in range(count)]  # fmt: skip
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    tables = {
        "task": {"name": "toy", "kind": "classification"},
        "data": {"train": "train.csv", "test": "test.csv", "text": "text", "label": "label"},
        "model": {"weights": "weights", "max_tokens": 16},
        "train": {"batch_size": 8},
    }
    task = parse(tables, folder=str(tmp_path)).absolute()
    splits, model, encoded = look_ahead(task)
    return task, splits[0], model, encoded["train"]


def test_a_budget_is_proposed_that_is_as_fast_as_any_and_takes_least(ready, monkeypatch):
    task, splits, model, encoded = ready
    monkeypatch.setattr(speed, "BUDGETS", (16, 32, 64, 128))
    paces = {16: 500.0, 32: 985.0, 64: 1000.0, 128: 1001.0, 8192: 0.0}

    def measured(steps, budget):
        assert next(steps).tokens_per_microbatch == budget
        return paces[budget]

    monkeypatch.setattr(speed, "speed_of", measured)
    found = tune(*ready)
    assert [trial.budget for trial in found.trials] == [16, 32, 64, 128, 8192]
    assert found.best == 32 and found.present == 8192
    words = tuning_words(found)
    assert "[train] tokens_per_microbatch = 32" in words and "memory ran out" in words


def test_no_budget_is_tried_beyond_a_whole_step(ready):
    task, _, _, encoded = ready
    step = 8 * encoded.lengths.mean()
    assert step < speed.budgets(task, encoded)[-1] == 1024 and speed.budgets(task, encoded) == [1024]


def test_nothing_to_change_is_said():
    words = tuning_words(Tuning((Trial(1024, 10.0, 9.0, 11.0),), 1024, 1024))
    assert "as fast as any" in words and "now, proposed" in words


@pytest.mark.slow
def test_measuring_changes_no_weight(ready):
    task, splits, model, encoded = ready
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tune(*ready)
    found = explain(*ready)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert sum(found.parts.values()) == pytest.approx(found.seconds, rel=0.1)
    assert found.parts["matrix products"] > 0 and found.parts["attention"] > 0 and found.parts["dropout"] > 0
    assert 0 < found.rate < found.limit and found.texts in (6, 7, 8)


@pytest.mark.slow
def test_a_step_that_had_to_be_split_has_no_speed(ready):
    task, splits, model, encoded = ready
    learner = speed.learner_of(task, splits, model, encoded)
    real, room = learner.forward, 1000

    def hungry(places, batch, wanted):
        if len(batch.token_ids) > room:
            raise torch.OutOfMemoryError("no room")
        return real(places, batch, wanted)

    learner.forward = hungry
    assert speed.speed_of(speed.idle_steps(task, splits, learner, 64), 64) > 0
    room = 30  # a step has more, half of it has not: the loop goes on, and that is another budget's speed
    assert speed.speed_of(speed.idle_steps(task, splits, learner, 64), 64) == 0
    room = 1
    assert speed.speed_of(speed.idle_steps(task, splits, learner, 64), 64) == 0
    with pytest.raises(OutOfMemory, match="too short for 1,024 tokens"):
        learner_of = speed.learner_of
        speed.learner_of = lambda *_: learner
        try:
            tune(*ready)
        finally:
            speed.learner_of = learner_of


def test_measuring_stands_alone(monkeypatch, tmp_path):
    found = CliRunner().invoke(
        app, ["run", "reuters8", "--tune", "--seeds", "3", "--out", str(tmp_path / "x")]
    )
    assert found.exit_code == 2 and "leave --seeds, --out out" in found.stderr
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="leave torchrun out"):
        speed.measured(
            parse(
                {
                    "task": {"name": "a", "kind": "regression"},
                    "data": {"train": "a", "test": "b", "text": "c", "label": "d"},
                    "model": {"weights": "e"},
                }
            ),
            True,
            False,
        )


def test_the_table_adds_up():
    found = Explained(2.0, 4000, 32, {"matrix products": 1.5, "attention": 0.5}, 1e11, 4e11, "cpu, 2 threads")
    words = explained_words(found)
    assert "2,000 tokens/s" in words and "75.0%" in words and "25% of the 400" in words


def test_operations_are_told_apart_by_name():
    found = speed.shares(
        {"aten::addmm": 5.0, "aten::add_": 1.0, "AttentionBackward": 2.0, "aten::odd": 0.5}, 10.0
    )
    assert found["matrix products"] == 0.5 and found["sums (biases, residuals, gradients)"] == 0.1
    assert found["attention"] == 0.2 and found["other operations"] == 0.05
    assert found["Python, and waiting"] == pytest.approx(0.15) and sum(found.values()) == pytest.approx(1)
