"""What a run says of its machine, and when it refuses one."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch

from minibert import device as devices
from minibert.bench import conditions
from minibert.errors import EnvironmentProblem

CPU, CARD = torch.device("cpu"), torch.device("cuda")


def test_a_machine_is_told_in_words_that_json_takes(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    found = conditions.machine(CPU)
    assert json.loads(json.dumps(found)) == found
    assert found["cpu_capability"] and found["threads"] and found["versions"]["torch"] == torch.__version__
    assert found["environment"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert set(found["flags"]) <= set(conditions.FLAGS)


def test_a_watch_tells_what_others_took(monkeypatch):
    ticks = iter(
        [{"all": 100, "busy": 50, "steal": 1, "own": 10}, {"all": 200, "busy": 130, "steal": 21, "own": 40}]
    )
    monkeypatch.setattr(conditions, "processor_time", lambda: next(ticks))
    seen = conditions.Watch(CPU).ended()
    assert (seen["steal"], seen["others"]) == (0.2, 0.5)


def test_a_busy_machine_is_warned_of(monkeypatch):
    monkeypatch.setattr(conditions.Watch, "ended", lambda self: {"others": 0.5, "steal": 0.0})
    (warning,) = conditions.check_idle(CPU)
    assert "50%" in warning and "other processes" in warning
    monkeypatch.setattr(conditions.Watch, "ended", lambda self: {"others": None, "steal": None})
    assert conditions.check_idle(CPU) == []


def test_a_busy_card_is_refused_unless_it_must_be(monkeypatch):
    said = "NVIDIA H100, 550.1, 1980, 2619, 120.5, 35, 40, 2000\n"
    monkeypatch.setattr(conditions.shutil, "which", lambda name: name)
    monkeypatch.setattr(devices, "card_id", lambda device: "GPU-1")
    asked = []

    def answer(words, **_):
        asked.append(words)
        return subprocess.CompletedProcess(words, 0, said, "")

    monkeypatch.setattr(conditions.subprocess, "run", answer)
    assert conditions.card(CARD)["MHz"] == "1980" and asked[0][-2:] == ["-i", "GPU-1"]
    with pytest.raises(EnvironmentProblem, match="40 %"):
        conditions.check_idle(CARD)
    assert len(conditions.check_idle(CARD, anyway=True)) == 1
