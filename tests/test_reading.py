"""A task's texts to ids: the training part at once, the others ahead; nothing is refused late."""

from __future__ import annotations

import csv
import threading
import time
from concurrent.futures import Future

import pytest

from minibert import reading
from minibert.errors import DataError
from minibert.outset import new_model
from minibert.reading import encode_all
from minibert.run import every_split
from minibert.spec import parse

from .helpers import write_model


def task_of(folder, texts, **model):
    write_model(folder / "weights")
    for name, rows in texts.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *[(t, "xy"[i % 2]) for i, t in enumerate(rows)]])
    tables = {
        "task": {"name": "toy", "kind": "classification"},
        "data": {n: f"{n}.csv" for n in texts} | {"text": "text", "label": "label"},
        "model": {"weights": "weights", "max_tokens": 20, **model},
    }
    task = parse(tables, folder=str(folder)).absolute()
    splits = next(iter(every_split(task)))
    return task, new_model(task, splits, "cpu"), splits


TEXTS = {
    name: [f"{name} the cat sat", "the dog ran", "a mat", "on"] for name in ("train", "validation", "test")
}


def test_the_parts_come_to_what_they_would_alone(tmp_path):
    task, model, splits = task_of(tmp_path, TEXTS)
    found = encode_all(task, model, splits)
    for part in (splits.train, splits.validation, splits.test):
        assert found[part.name].ids == model.read(part.texts).ids


def test_only_the_training_part_is_waited_for(tmp_path, monkeypatch):
    task, model, splits = task_of(tmp_path, TEXTS)
    real, go, where = model.read, threading.Event(), {}

    def slow(texts, *rest, **more):
        where[texts[0].split()[0]] = threading.current_thread() is threading.main_thread()
        if not texts[0].startswith("train"):
            assert go.wait(20)
        return real(texts, *rest, **more)

    monkeypatch.setattr(model, "read", slow)
    found = encode_all(task, model, splits)
    assert isinstance(dict.__getitem__(found, "test"), Future)
    go.set()
    assert len(found["test"]) == 4 and len(found["validation"]) == 4
    assert where == {"train": True, "validation": False, "test": False}
    assert not isinstance(dict.__getitem__(found, "test"), Future), "and kept"


def test_what_may_refuse_a_text_is_not_left_to_the_thread(tmp_path):
    texts = TEXTS | {"test": ["the cat sat on the mat " * 5, "b", "c"]}
    task, model, splits = task_of(tmp_path, texts, truncation="error")
    with pytest.raises(DataError, match=r"test\.csv \(test\): row 0 has"):
        encode_all(task, model, splits)


def test_a_text_of_no_text_is_refused_at_once(tmp_path, monkeypatch):
    task, model, splits = task_of(tmp_path, TEXTS)
    object.__setattr__(splits.test, "texts", ["a", "b", "c\ud800", "d"])
    monkeypatch.setattr(reading, "read", lambda *_: time.sleep(0))
    with pytest.raises(DataError, match=r"test\.csv \(test\): row .*half of a pair"):
        encode_all(task, model, splits)
