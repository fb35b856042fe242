"""Nothing leaves the machine but downloads that were asked for: whole commands where every connection is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from .test_run import ROOT, task, texts, weights, write  # noqa: F401  fixtures

# A process in which whatever would speak to another machine is refused by Python itself, below every library, and
# written down; programs it starts, whose connections it can't see, are written down, too. Then the commands; at the
# end it asks for a page, to show that the watch is awake.
FORBIDDEN = """
import json, os, sys, urllib.request
connections, programs = [], []

def watch(event, words):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"):
        connections.append(repr(words[:2]))
        raise OSError("no network here")
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.spawn"):
        programs.append(os.path.basename(os.fsdecode(words[0])))

sys.addaudithook(watch)
from minibert.cli import app
for words in json.loads(sys.argv[1]):
    try:
        app(words)
    except SystemExit as end:
        if end.code:
            sys.exit(f"{words} ended in {end.code}")
asked = {"connections": list(connections), "programs": programs,
         "modules": sorted({name.partition(".")[0] for name in sys.modules})}
try:
    urllib.request.urlopen("http://awake.invalid")
except OSError:
    assert "awake.invalid" in connections[-1]
    print(json.dumps(asked))
"""
# What speaks over a network, or tells others what is done here; what is started on this machine to know its processor,
# and to compile the attention kernel.
SPEAKING = {"huggingface_hub", "hf_xet", "requests", "httpx", "wandb", "mlflow", "tensorboard", "sentry_sdk", "posthog",
            "analytics", "opentelemetry"}  # fmt: skip
HARMLESS = {"uname", "sysctl", "cmd", "g++", "c++", "clang++"}


def offline(commands, folder, **more):
    """A process that does these commands, and what it asked for if they ended well."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN, json.dumps(commands)], cwd=folder, env=env, capture_output=True,
        text=True, encoding="utf-8",
    )  # fmt: skip
    return done, json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def silent(commands, folder):
    """Whether nothing was asked of anybody."""
    done, asked = offline(commands, folder)
    assert asked is not None, done.stderr
    assert asked["connections"] == [] and set(asked["programs"]) <= HARMLESS
    assert not SPEAKING & set(asked["modules"])


@pytest.fixture
def spec_file(weights, tmp_path):  # noqa: F811
    one = task(tmp_path, weights, train={"epochs": 1})
    (tmp_path / "task.toml").write_text(one.to_toml(), encoding="utf-8")
    write(tmp_path / "new.csv", texts(9, 3))
    return tmp_path


# A verb that reads texts belongs here.
COMMANDS = [
    ["check", "task.toml"],
    ["run", "task.toml", "--out", "out"],
    ["predict", "out", "--input", "new.csv", "--output", "answers.csv"],
    [
        "embed",
        "out",
        "--input",
        "new.csv",
        "--column",
        "text",
        "--pooling",
        "mean",
        "--output",
        "vectors.npy",
    ],
    ["init", "new.csv", "--out", "new.toml"],
]


@pytest.mark.slow
def test_nothing_speaks_to_another_machine(spec_file):
    silent(COMMANDS, spec_file)
    assert (spec_file / "out" / "report.html").is_file() and (spec_file / "answers.csv").is_file()


@pytest.mark.slow
def test_several_runs_neither(spec_file):
    silent([["run", "task.toml", "--seeds", "2", "--no-texts", "--out", "seeds"]], spec_file)


@pytest.mark.slow
def test_a_study_neither(spec_file):
    words = ["--set", "study.examples=[0]", "--set", "study.seeds=1", "--no-texts", "--out", "study"]
    silent([["study", "task.toml", *words]], spec_file)
    page = (spec_file / "study" / "report.html").read_text(encoding="utf-8")
    table = (spec_file / "study" / "predictions.csv").read_text(encoding="utf-8")
    some = (spec_file / "test.csv").read_text(encoding="utf-8").splitlines()[1].split(",")[0]
    assert some not in page + table, "and keeps texts to itself"


@pytest.mark.slow
def test_weights_that_are_asked_for_are_asked_of_the_hub_and_of_nobody_else(spec_file):
    words = ["run", "task.toml", "--set", "model.weights=nobody/nothing", "--out", "other"]
    hub = {"HF_HUB_CACHE": str(spec_file / "hub"), "HF_ENDPOINT": "https://hub.invalid"}
    done, _ = offline([words], spec_file, **hub)
    assert "ended in 1" in done.stderr and "hub.invalid" in done.stderr
    assert not (spec_file / "other").exists()


def test_the_hubs_client_is_told_to_say_nothing_of_this_machine():
    code = (
        "import minibert.catalogue\nfrom huggingface_hub import constants\nfrom huggingface_hub.utils import build_hf_headers\n"
        "assert constants.HF_HUB_DISABLE_TELEMETRY\nprint(build_hf_headers(token=False)['user-agent'])"
    )
    env = {k: v for k, v in os.environ.items() if "TELEMETRY" not in k} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "torch" not in done.stdout
