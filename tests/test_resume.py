"""A run that is interrupted goes on bit for bit: killed anywhere, stopped, with a full disk or a damaged file."""

# ruff: noqa: F811  (a fixture from elsewhere)
from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
import traceback
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

import minibert
from minibert import cli, folder, resume, spec, system
from minibert.errors import ConfigError, DataError, EnvironmentProblem, WeightsError
from minibert.run import run

from .test_run import read, task, texts, weights, write  # noqa: F401  fixture

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and forks of POSIX")
STEPS = 9  # an epoch
SHORT = {"epochs": 4, "learning_rate": 5e-3, "checkpoint_steps": 4, "checkpoint_minutes": 0.0}
RESULTS = ("metrics.json", "predictions.csv", "baseline.csv", "model/model.safetensors", "model/config.json")


def short(tmp_path, weights, **changes):
    """A run of 36 steps that saves every four."""
    return task(tmp_path, weights, train=SHORT | changes)


def crossed(tmp_path, weights, **changes):
    """The same with three folds of 4 steps an epoch."""
    tables = short(tmp_path, weights, epochs=2, checkpoint_steps=3, **changes).table()
    write(tmp_path / "all.csv", texts(60, 3))
    tables["data"] = {"source": "all.csv", "folds": 3, "validation": 0.2, "text": "text", "label": "topic"}
    return spec.parse(tables, folder=str(tmp_path))


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    """What the short run leaves when nothing interrupts it."""
    tmp_path = tmp_path_factory.mktemp("whole")
    outcome = run(short(tmp_path, weights), tmp_path / "out")
    assert outcome.metrics["test"]["accuracy"]["value"] > 0.6, "one that learns nothing would hide much"
    return tmp_path / "out"


def history(out):
    """The events without the speeds, which are a clock's."""
    lines = (out / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(x).items() if "per_second" not in k} for x in lines]


def same(out, wanted):
    """Every result is equal in every bit, and nothing else lies there."""
    for name in RESULTS:
        assert (out / name).read_bytes() == (wanted / name).read_bytes(), name
    assert history(out) == history(wanted)
    assert {p.name for p in out.iterdir()} == {p.name for p in wanted.iterdir()}
    assert read(out, "status.json") == read(wanted, "status.json")


def names(out):
    return sorted(p.name for p in (out / "checkpoints").iterdir())


def forked(work):
    """Run `work` in a process of its own, which the test may kill; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def killed_in(module, name, at, work, before=False):
    """Run `work` in a child that is killed by SIGKILL in the `at`-th call of a function (after it, or before)."""

    def fatal():
        real, count = getattr(module, name), []

        def wrapped(*words, **options):
            count.append(1)
            if len(count) == at and before:
                os.kill(os.getpid(), signal.SIGKILL)
            found = real(*words, **options)
            if len(count) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        setattr(module, name, wrapped)
        work()

    _, status = os.waitpid(forked(fatal), 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status


def stops(monkeypatch, module, name, at=1, number=signal.SIGTERM):
    """Send this process a signal in the `at`-th call of a function."""
    real, count = getattr(module, name), []

    def wrapped(*words, **options):
        count.append(1)
        if len(count) == at:
            os.kill(os.getpid(), number)
        return real(*words, **options)

    monkeypatch.setattr(module, name, wrapped)


# --- killed ---------------------------------------------------------------------------------------

# Where a process is killed: in which call of which function, before or after it.
DEATHS = {
    "in the middle of an epoch": ("minibert.fit.log_step", 15, False),
    "between an epoch and its validation": ("minibert.fit.validate", 2, True),
    "before the manifest of the third checkpoint": ("minibert.resume.system.sha256", 3 * 4, False),
    "in the middle of its tensors": ("minibert.resume.save_file", 3 * 3, False),
    "while an old checkpoint goes": ("minibert.resume.shutil.rmtree", 4, False),
    "while it predicts": ("minibert.run.predict_test", 1, True),
    "while it writes the scores": ("minibert.run.write_scores", 1, False),
}


def function_of(dotted):
    """(module, name) of a dotted function."""
    import functools
    import importlib

    first, second, *rest, name = dotted.split(".")
    return functools.reduce(getattr, rest, importlib.import_module(f"{first}.{second}")), name


QUICKLY = ("in the middle of an epoch", "in the middle of its tensors")  # the others are among the slow tests


@POSIX
@pytest.mark.parametrize(
    "where", [where if where in QUICKLY else pytest.param(where, marks=pytest.mark.slow) for where in DEATHS]
)
def test_a_killed_run_goes_on_bit_for_bit(where, whole, weights, tmp_path):
    dotted, at, before = DEATHS[where]
    one, out = short(tmp_path, weights), tmp_path / "out"
    killed_in(*function_of(dotted), at, lambda: run(one, out), before)
    assert read(out, "status.json")["status"] == "running" and names(out)
    with pytest.raises(ConfigError, match="already holds a run.*\n.*--resume"):
        run(one, out)
    assert run(one, out, resume=True).status == "completed"
    same(out, whole)


@pytest.mark.slow
@POSIX
def test_folds_that_are_done_are_kept(weights, tmp_path, monkeypatch):
    one, out = crossed(tmp_path, weights), tmp_path / "out"
    run(one, tmp_path / "whole")
    killed_in(*function_of("minibert.fit.log_step"), 16, lambda: run(one, out))  # of 24
    assert names(out) == ["fold-0001", "step-00000003", "step-00000006"]
    fitted, real = [], minibert.run.fit
    monkeypatch.setattr(minibert.run, "fit", lambda *words: fitted.append(words[-1]) or real(*words))
    assert run(one, out, resume=True).status == "completed"
    assert fitted == [2, 3]
    same(out, tmp_path / "whole")


@pytest.mark.slow
@POSIX
def test_a_damaged_fold_is_done_again(weights, tmp_path, capsys):
    one, out = crossed(tmp_path, weights), tmp_path / "out"
    run(one, tmp_path / "whole")
    killed_in(*function_of("minibert.fit.log_step"), 21, lambda: run(one, out))
    (out / "checkpoints" / "fold-0001" / "test.safetensors").write_bytes(b"")
    run(one, out, resume=True)
    assert "fold-0001 is damaged: test.safetensors has 0 bytes" in capsys.readouterr().err
    for name in RESULTS:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert sorted(map(str, history(out))) == sorted(map(str, history(tmp_path / "whole")))


@POSIX
@pytest.mark.slow
def test_twenty_random_kills(weights, tmp_path):
    """Killed at random moments after the first checkpoint, every other run twice: all of them end alike."""
    one, chance = short(tmp_path, weights, checkpoint_steps=2, epochs=6), random.Random(0)

    def started(out, resume=False):
        """A child that runs until it has a checkpoint, or has ended."""
        child = forked(lambda: run(one, out, resume=resume))
        while not list(out.glob("checkpoints/step-*")) and read(out, "status.json")["status"] != "completed":
            time.sleep(0.002)
        return child

    def read(out, name):
        return folder.read_json(out / name) or {"status": "running"}

    child, begin = started(tmp_path / "whole"), time.monotonic()
    os.waitpid(child, 0)
    lasts, kills, number = time.monotonic() - begin, 0, 0
    while kills < 20:
        number += 1
        assert number < 80, f"only {kills} of {number} runs were killed before they were done"
        out, times = tmp_path / f"out{number}", 0
        for _ in range(1 + number % 2):
            child = started(out, resume=times > 0)
            time.sleep(chance.uniform(0, lasts))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if read(out, "status.json")["status"] == "completed":
                break
            times += 1
        if times:
            kills += times
            if read(out, "status.json")["status"] != "completed":
                assert run(one, out, resume=True).status == "completed"
            same(out, tmp_path / "whole")


@POSIX
@pytest.mark.slow
def test_real_weights_killed_stopped_and_resumed(minilm, tmp_path, monkeypatch):
    """MiniLM, dropout and all: killed in its second epoch, resumed, stopped, resumed: bit for bit one that ran."""
    one = short(tmp_path, minilm, epochs=2, learning_rate=5e-5)
    run(one, tmp_path / "whole")
    out = tmp_path / "out"
    killed_in(*function_of("minibert.fit.log_step"), 11, lambda: run(one, out))
    with monkeypatch.context() as patch:
        stops(patch, minibert.fit, "log_step", 5)
        assert run(one, out, resume=True).status == "stopped"
    assert run(one, out, resume=True).status == "completed"
    same(out, tmp_path / "whole")


# --- stopped --------------------------------------------------------------------------------------


LATER = [("log_step", 18), ("validate", 3)]


@POSIX
@pytest.mark.parametrize(
    "where",
    [("log_step", 14), ("predict_test", 1), *(pytest.param(x, marks=pytest.mark.slow) for x in LATER)],
)
def test_a_stopped_run_says_how_to_go_on_and_does(where, whole, weights, tmp_path, monkeypatch, capsys):
    """Also where checkpoints are switched off: a stop always saves one."""
    one, out = short(tmp_path, weights, checkpoint_steps=0), tmp_path / "out"
    module = minibert.run if where[0] == "predict_test" else minibert.fit
    with monkeypatch.context() as patch:
        stops(patch, module, *where)
        outcome = run(one, out)
    assert (outcome.status, outcome.exit_code) == ("stopped", 75)
    assert f"go on with: minibert run {out} --resume" in read(out, "status.json")["message"]
    assert f"minibert run {out} --resume" in capsys.readouterr().err and len(names(out)) == 1
    done = CliRunner().invoke(cli.app, ["run", str(out), "--resume"])
    assert done.exit_code == 0, done.output
    same(out, whole)


@pytest.mark.slow
@POSIX
def test_a_second_stop_before_the_next_step_is_no_matter(whole, weights, tmp_path, monkeypatch):
    one, out = short(tmp_path, weights), tmp_path / "out"
    for at in (1, 1, 7):
        with monkeypatch.context() as patch:
            stops(patch, minibert.fit, "log_step", at, signal.SIGINT)
            assert run(one, out, resume=out.exists()).exit_code == 75
    run(one, out, resume=True)
    same(out, whole)


def test_patience_and_the_best_epoch_survive(weights, tmp_path, monkeypatch):
    """Stopped when the epoch before was no better: one more such epoch ends the run, not two."""
    scores = iter([0.5, 0.7, 0.6, 0.65, 0.9, 0.9])  # the fifth is never asked for
    told = []

    def validate(*_):
        told.append(next(scores))
        return {"loss": 1.0, "accuracy": told[-1], "macro_f1": told[-1]}

    monkeypatch.setattr(minibert.fit, "validate", validate)
    one, out = short(tmp_path, weights, epochs=6, patience=2), tmp_path / "out"
    with monkeypatch.context() as patch:
        stops(patch, minibert.fit, "log_step", 3 * STEPS + 2)
        run(one, out)
    (state,) = (read(out / "checkpoints" / names(out)[-1], "state.json")["course"],)
    assert (state["best_epoch"], state["stale"], state["validated"]) == (2, 1, 3)
    assert run(one, out, resume=True).status == "completed"
    assert len(told) == 4 and read(out, "status.json")["best_epoch"] == 2
    assert read(out, "metrics.json")["validation"]["accuracy"] == 0.7


# --- what lies in checkpoints/ --------------------------------------------------------------------


def stopped_at(step, tmp_path, weights, monkeypatch, **changes):
    """A run that was stopped at a step, and its spec."""
    one, out = short(tmp_path, weights, **changes), tmp_path / "out"
    with monkeypatch.context() as patch:
        stops(patch, minibert.fit, "log_step", step)
        assert run(one, out).exit_code == 75
    return one, out


@pytest.mark.slow
@POSIX
def test_the_loss_scale_survives(weights, tmp_path, monkeypatch, capsys):
    """In float16, from a scale that first overflows and then grows again."""
    monkeypatch.setattr("minibert.optim.Scaler.FIRST", 2.0**20)
    monkeypatch.setattr("minibert.optim.Scaler.EVERY", 3)
    low = {"dtype": "float16", "force_dtype": True, "device": "cpu", "epochs": 2}
    run(short(tmp_path, weights, **low), tmp_path / "whole")
    steps = [x for x in history(tmp_path / "whole") if x["event"] == "step"]
    scales = [x["loss_scale"] for x in steps]
    skipped = [x["skipped"] for x in steps]
    assert any(skipped) and any(b > a for a, b in zip(scales, scales[1:]))
    assert all((b < a) == left_out for a, b, left_out in zip(scales, scales[1:], skipped))
    assert "gradients overflowed float16 at a loss scale of 1.04858e+06" in capsys.readouterr().err
    page = (tmp_path / "whole" / "report.html").read_text(encoding="utf-8")
    assert f"{sum(skipped)} steps of {len(steps)} changed no weight" in page

    one, out = stopped_at(10, tmp_path, weights, monkeypatch, **low)
    run(one, out, resume=True)
    same(out, tmp_path / "whole")


def test_the_newest_are_kept_and_all_go_in_the_end(weights, tmp_path, monkeypatch):
    one, out = stopped_at(22, tmp_path, weights, monkeypatch, keep=3)
    assert names(out) == ["step-00000016", "step-00000020", "step-00000022"]
    newest = out / "checkpoints" / "step-00000022"
    files = {p.name for p in newest.iterdir()}
    assert files == {"MANIFEST.json", "state.json", "model.safetensors", "best.safetensors", "optimizer.safetensors"}  # fmt: skip
    manifest = read(newest, "MANIFEST.json")["files"]
    assert set(manifest) == files - {"MANIFEST.json"}
    for name, said in manifest.items():
        assert said == {"bytes": (newest / name).stat().st_size, "sha256": system.sha256(newest / name)}
    run(one, out, resume=True)
    assert not (out / "checkpoints").exists() and not (out / ".lock").exists()


@POSIX
def test_the_clock_saves_too(weights, tmp_path, monkeypatch):
    one, out = stopped_at(
        5, tmp_path, weights, monkeypatch, checkpoint_steps=0, checkpoint_minutes=1e-9, keep=9
    )
    assert names(out) == [f"step-0000000{n}" for n in (1, 2, 3, 4, 5)]


DAMAGE = {
    "a flipped bit": lambda f: (f / "optimizer.safetensors").write_bytes(
        flipped((f / "optimizer.safetensors").read_bytes())
    ),
    "cut off": lambda f: (f / "model.safetensors").write_bytes(b""),
    "a file gone": lambda f: (f / "best.safetensors").unlink(),
    "no manifest": lambda f: (f / "MANIFEST.json").unlink(),
    "a manifest that is none": lambda f: (f / "MANIFEST.json").write_text("[]"),
    "a state that was edited": lambda f: (f / "state.json").write_text("{}"),
}


def flipped(raw):
    return raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:]


@POSIX
@pytest.mark.parametrize(
    "what", [*list(DAMAGE)[:2], *(pytest.param(x, marks=pytest.mark.slow) for x in list(DAMAGE)[2:])]
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    what, whole, weights, tmp_path, monkeypatch, capsys
):
    one, out = stopped_at(22, tmp_path, weights, monkeypatch)
    DAMAGE[what](out / "checkpoints" / "step-00000022")
    with monkeypatch.context() as patch:
        stops(patch, minibert.fit, "log_step", 1)
        assert run(one, out, resume=True).exit_code == 75
    said = capsys.readouterr().err
    assert "step-00000022 is damaged" in said and "of which 20 are done" in said
    assert names(out) == ["step-00000020", "step-00000021"], (
        "the damaged one goes once there is a newer good one"
    )
    run(one, out, resume=True)
    same(out, whole)


@POSIX
def test_where_all_are_damaged_nothing_is_done_and_nothing_deleted(weights, tmp_path, monkeypatch):
    one, out = stopped_at(22, tmp_path, weights, monkeypatch)
    for name in names(out):
        (out / "checkpoints" / name / "state.json").unlink()
    before = names(out)
    with pytest.raises(ConfigError, match=r"none of its 2 checkpoints is whole.*\n.*--overwrite"):
        run(one, out, resume=True)
    assert names(out) == before and read(out, "status.json")["status"] == "stopped"


@POSIX
def test_a_full_disk_leaves_the_checkpoint_before_and_the_run_goes_on(
    whole,
    weights,
    tmp_path,
    monkeypatch,
    capsys,
):
    import resource

    real, count = resume.write, []

    def full(*words):
        count.append(1)
        if len(count) not in (3, 4):
            return real(*words)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
            return real(*words)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, old)

    monkeypatch.setattr(resume, "write", full)
    one, out = stopped_at(16, tmp_path, weights, monkeypatch)
    said = capsys.readouterr().err
    assert said.count("no checkpoint was saved") == 2 and "MB are free" in said
    assert len(count) == 4 and names(out) == ["step-00000004", "step-00000008"], "nothing half-written stays"
    run(one, out, resume=True)
    same(out, whole)


def test_room_for_the_model_is_left(whole, weights, tmp_path, monkeypatch, capsys):
    """A disk that a checkpoint would fill, so that the model could not be saved in the end."""
    size = sum(p.stat().st_size for p in (whole / "model").glob("*.safetensors"))
    monkeypatch.setattr(resume.shutil, "disk_usage", lambda _: SimpleNamespace(free=4 * size))
    assert run(short(tmp_path, weights), tmp_path / "out").status == "completed"
    said = capsys.readouterr().err
    assert said.count("no checkpoint was saved") == 7, "each but the two before there is a best epoch"
    same(tmp_path / "out", whole)


@pytest.mark.slow
@POSIX
def test_nothing_of_a_half_written_checkpoint_is_ever_seen(weights, tmp_path, monkeypatch):
    """Killed at each write in turn: what has a name is whole."""
    model = torch.nn.Linear(3, 2)
    tensors = {"model": model.state_dict(), "optimizer": {}, "best": {"a": torch.zeros(2)}}
    resume.write(tmp_path / "c" / "step-00000001", tensors, {"n": 1})
    calls = ("os.replace", "os.chmod", "pathlib.Path.rename", "pathlib.Path.mkdir", "hashlib.file_digest")
    for dotted in calls:
        for at in range(1, 9):
            child = forked(lambda: fatal(dotted, at, tmp_path, tensors))  # noqa: B023
            os.waitpid(child, 0)
            for path in (tmp_path / "c").glob("step-*"):
                assert resume.read(path).facts["n"] == int(path.name[5:])
            shutil.rmtree(tmp_path / "c" / "step-00000002", ignore_errors=True)


def fatal(dotted, at, tmp_path, tensors):
    """Write a second checkpoint, and die in the `at`-th call of a function of the standard library."""
    import functools
    import importlib

    first, *rest, name = dotted.split(".")
    place = functools.reduce(getattr, rest, importlib.import_module(first))
    real, count = getattr(place, name), []

    def wrapped(*words, **options):
        count.append(1)
        if len(count) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words, **options)

    setattr(place, name, wrapped)
    resume.write(tmp_path / "c" / "step-00000002", tensors, {"n": 2})


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    one = torch.randn(3, 2)
    tensors = {"a": {"x": one, "the same again": one, "a number": torch.tensor(3.0)}, "none": {}}
    resume.write(tmp_path / "step-00000007", tensors, {"nan": float("nan"), "list": [1]})
    back = resume.read(tmp_path / "step-00000007")
    found = back.tensors("a", "none")
    assert found["none"] == {} and torch.equal(found["a"]["the same again"], one)
    assert torch.equal(found["a"]["x"], one) and found["a"]["a number"].shape == ()
    assert back.facts["list"] == [1] and back.facts["nan"] != back.facts["nan"]


def test_a_checkpoint_of_the_future_is_not_guessed_at(tmp_path):
    resume.write(tmp_path / "step-00000007", {}, {})
    manifest = tmp_path / "step-00000007" / "MANIFEST.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ConfigError, match="newer minibert"):
        resume.read(tmp_path / "step-00000007")


# --- refused --------------------------------------------------------------------------------------


@POSIX
def test_another_spec_is_refused_by_key(weights, tmp_path, monkeypatch):
    one, out = stopped_at(5, tmp_path, weights, monkeypatch)
    for changes, words in (
        ({"learning_rate": 2e-3}, r"\[train\] learning_rate is 0.002, was 0.005"),
        ({"epochs": 5, "seed": 1}, r"\[train\] epochs is 5, was 4; \[train\] seed is 1, was 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            run(short(tmp_path, weights, **changes), out, resume=True)
    assert read(out, "status.json")["status"] == "stopped"
    done = CliRunner().invoke(cli.app, ["run", str(out), "--resume", "--set", "model.max_tokens=12"])
    assert done.exit_code == 2 and "[model] max_tokens is 12, was 16" in done.output
    free = {"checkpoint_steps": 7, "checkpoint_minutes": 1.0, "keep": 1, "device": "cpu"}
    assert run(short(tmp_path, weights, **free), out, resume=True).status == "completed"
    assert spec.load(out / "spec.toml").train.keep == 1


@POSIX
@pytest.mark.parametrize(
    "what", ["train", *(pytest.param(x, marks=pytest.mark.slow) for x in ("test", "weights", "tokenizer"))]
)
def test_other_data_and_other_weights_are_refused(what, weights, tmp_path, monkeypatch):
    mine = shutil.copytree(weights, tmp_path / "mine")
    one, out = stopped_at(5, tmp_path, mine, monkeypatch)
    path, word, change = {
        "weights": (mine / "model.safetensors", r"\[model\] weights, model.safetensors", flipped),
        "tokenizer": (
            mine / "tokenizer_config.json",
            r"\[model\] tokenizer_config.json",
            lambda before: before + b"\n",
        ),
    }.get(
        what,
        (tmp_path / f"{what}.csv", rf"\[data\] {what}", lambda before: before.replace(b"farm", b"bank", 1)),
    )
    before = path.read_bytes()
    path.write_bytes(change(before))
    with pytest.raises(ConfigError, match=f"this has changed: {word}"):
        run(one, out, resume=True)
    assert read(out, "status.json")["status"] == "stopped" and names(out)
    path.write_bytes(before)
    (mine / "added_tokens.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"this has changed: \[model\] added_tokens.json"):
        run(one, out, resume=True)
    (mine / "added_tokens.json").unlink()
    assert run(one, out, resume=True).status == "completed"


def test_what_can_not_be_resumed_says_why(whole, weights, tmp_path, monkeypatch):
    one = short(tmp_path, weights)
    before = sorted(p.name for p in whole.iterdir())
    with pytest.raises(ConfigError, match="holds a completed run: there is nothing to resume"):
        run(one, whole, resume=True)
    assert sorted(p.name for p in whole.iterdir()) == before
    with pytest.raises(ConfigError, match="holds no run that could be resumed"):
        run(one, tmp_path / "absent", resume=True)
    assert not (tmp_path / "absent").exists()
    with pytest.raises(ConfigError, match="not both"):
        run(one, whole, resume=True, overwrite=True)

    def fails(*_):
        raise DataError("no baseline today")

    monkeypatch.setattr(minibert.run, "fit_baseline", fails)
    with pytest.raises(DataError):
        run(short(tmp_path, weights, checkpoint_steps=0), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"it holds no checkpoint.*\n.*--overwrite"):
        run(one, tmp_path / "out", resume=True)


@POSIX
def test_a_run_that_failed_is_resumed_once_the_cause_is_gone(whole, weights, tmp_path, monkeypatch):
    def fails(*_):
        raise EnvironmentProblem("memory ran out")

    with monkeypatch.context() as patch:
        patch.setattr(minibert.run, "fit_baseline", fails)
        with pytest.raises(EnvironmentProblem):
            run(short(tmp_path, weights), tmp_path / "out")
    assert read(tmp_path / "out", "status.json")["status"] == "failed"
    run(short(tmp_path, weights), tmp_path / "out", resume=True)
    same(tmp_path / "out", whole)


@POSIX
def test_two_processes_never_write_one_run(whole, weights, tmp_path, monkeypatch):
    """Another process holds the folder: neither a resume nor an overwrite gets in; once it has ended, both may."""
    one, out = stopped_at(5, tmp_path, weights, monkeypatch)
    ready, go = os.pipe(), os.pipe()

    def hold():
        with folder.alone(out):
            os.write(ready[1], b".")
            os.read(go[0], 1)

    child = forked(hold)
    try:
        os.read(ready[0], 1)
        before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(ConfigError, match="another process is writing a run"):
                run(one, out, **options)
        assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before
    finally:
        os.kill(child, signal.SIGKILL)  # whoever dies lets go
        os.waitpid(child, 0)
    run(one, out, resume=True)
    same(out, whole)


@POSIX
def test_an_interrupted_run_can_be_overwritten_but_not_what_is_not_its_own(
    whole, weights, tmp_path, monkeypatch
):
    one, out = stopped_at(5, tmp_path, weights, monkeypatch)
    (out / "checkpoints" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"checkpoints/thesis\.txt"):
        run(one, out, overwrite=True)
    (out / "checkpoints" / "thesis.txt").unlink()
    run(one, out, overwrite=True)
    same(out, whole)


@POSIX
def test_a_torn_line_of_the_history_goes(whole, weights, tmp_path, monkeypatch):
    one, out = stopped_at(14, tmp_path, weights, monkeypatch)
    with open(out / "history.jsonl", "a") as file:
        file.write('{"event": "step", "st')
    run(one, out, resume=True)
    same(out, whole)


@POSIX
def test_another_version_is_told(weights, tmp_path, monkeypatch, capsys):
    one, out = stopped_at(14, tmp_path, weights, monkeypatch)
    monkeypatch.setattr(minibert.run, "__version__", "9.9")
    run(one, out, resume=True)
    assert "minibert was " in capsys.readouterr().err


@POSIX
def test_another_number_format_is_told(weights, tmp_path, monkeypatch, capsys):
    """Which `auto` is on another device."""
    one, out = stopped_at(14, tmp_path, weights, monkeypatch)
    there = SimpleNamespace(number_format=lambda *_: "bfloat16", products=lambda: "")
    monkeypatch.setattr(resume, "device", there)
    run(one, out, resume=True)
    assert (
        "number format was float32 and is now bfloat16: the rest is computed in that"
        in capsys.readouterr().err
    )


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    from minibert.standing import Course
    from minibert.train import Plan

    one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 3)
    course = Course.new(one, Plan(8, 1, 4, 1e-3), 0)
    with pytest.raises(WeightsError, match="does not fit this version"):
        Course.new(other, course.plan, 0).restore(course.facts(), course.tensors())
    with pytest.raises(WeightsError, match="does not fit this version"):
        course.restore({"step": 1, "mood": "good"}, course.tensors())
