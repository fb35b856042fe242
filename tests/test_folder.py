"""Run folders: lines that are whole, numbers that JSON can say, and nobody's files touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from minibert import system
from minibert.errors import ConfigError, EnvironmentProblem
from minibert.folder import Onlooker, RunFolder, finite, read_status


def test_what_is_no_number_becomes_null():
    found = finite(
        {"a": float("nan"), 1: [np.float64("inf"), np.int64(3)], "b": np.array([[1.5]]), "c": (None, True)}
    )
    assert found == {"a": None, "1": [None, 3], "b": [[1.5]], "c": [None, True]}
    json.dumps(found, allow_nan=False)


def test_an_onlooker_writes_nothing(tmp_path):
    folder = Onlooker(tmp_path / "run")
    folder.status("running")
    folder.text("spec.toml", "")
    folder.event("step", loss=0.5)
    folder.cut_history(lambda event: False)
    assert not any(tmp_path.iterdir())


def test_events_are_lines(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.event("step", loss=0.5)
    folder.event("evaluation", loss=float("nan"), text="a\nb")
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert lines == [{"event": "step", "loss": 0.5}, {"event": "evaluation", "loss": None, "text": "a\nb"}]


def test_a_history_that_can_not_be_written_has_a_name(tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")  # somebody tidied up
    with pytest.raises(EnvironmentProblem, match=r"history\.jsonl could not be written"):
        folder.event("step", loss=0.5)


def test_a_file_in_the_way_and_a_damaged_status_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder(tmp_path / "file")
    run = RunFolder(tmp_path / "run")
    assert read_status(run.path) == "running"
    with pytest.raises(ConfigError, match=r"holds a run \(running\)"):
        RunFolder(tmp_path / "run")
    for foreign in ("{", "{}", '{"status": "shipped"}'):
        (run.path / "status.json").write_text(foreign)
        for overwrite in (False, True):
            with pytest.raises(ConfigError, match="not a run's"):
                RunFolder(tmp_path / "run", overwrite)
    (run.path / "status.json").write_text("")  # killed as it began
    RunFolder(tmp_path / "run", overwrite=True)


def test_what_a_killed_run_half_wrote_is_cleared_and_nothing_else(tmp_path):
    run = RunFolder(tmp_path / "run")
    (run.path / ".metrics.json.x1y2.part").write_text("{")
    (run.path / ".model.abcd1234.part").mkdir()
    (run.path / ".model.abcd1234.part" / "config.json").write_text("{}")
    (run.path / ".thesis.txt.x1.part").write_text("mine")
    with pytest.raises(ConfigError, match="thesis"):
        RunFolder(run.path, overwrite=True)
    (run.path / ".thesis.txt.x1.part").unlink()
    RunFolder(run.path, overwrite=True)
    assert [p.name for p in run.path.iterdir()] == ["status.json"]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX can ask without ending the process")
def test_a_folder_that_a_live_process_writes_is_not_overwritten(tmp_path):
    """The parent of this process is alive; a process that has ended is not."""
    run = RunFolder(tmp_path / "run")
    assert json.loads((run.path / "status.json").read_text())["pid"] == os.getpid()
    other = system.me() | {"status": "running"}
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid, refused in ((os.getppid(), True), (ended.pid, False)):
        (run.path / "status.json").write_text(json.dumps(other | {"pid": pid}))
        if refused:
            with pytest.raises(ConfigError, match="right now"):
                RunFolder(run.path, overwrite=True)
        else:
            RunFolder(run.path, overwrite=True)


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    assert RunFolder(tmp_path / "empty").path.is_absolute()


def test_of_two_runs_that_start_together_one_is_refused(tmp_path, monkeypatch):
    """Both found the folder empty; only one can create its status file."""
    monkeypatch.setattr("minibert.folder.check_folder", lambda path, overwrite: [])
    RunFolder(tmp_path / "run")
    with pytest.raises(ConfigError, match="another run"):
        RunFolder(tmp_path / "run")
