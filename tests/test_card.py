"""Whole trainings on a card that isn't there (card.py): the lines that only CUDA runs, with numbers.

They must give a processor's losses, and no step may make the host wait. What a real card does with them, and how
fast, is for the tests marked `gpu`.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from . import card
from .test_run import weights  # noqa: F401  fixture

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
STILL = {"dropout": 0.0, "attention_dropout": 0.0}

# name -> (kind, [model], [train], the card's compute capability; None: on the processor)
RUNS = {
    "processor": ("classification", STILL, {}, None),
    "float32": ("classification", STILL, {"dtype": "float32"}, (8, 0)),
    "tf32": ("classification", STILL, {"dtype": "tf32"}, (8, 0)),
    "bfloat16": ("classification", STILL, {}, (8, 0)),
    "float16": ("classification", STILL, {}, (7, 5)),
    "dropout": ("classification", {}, {"tokens_per_microbatch": 40, "recompute": True}, (8, 0)),
    "weighted": ("classification", {}, {"class_weights": "balanced", "lora_rank": 2}, (8, 0)),
    "mean": ("classification", {"pooling": "mean"}, {"freeze_layers": 1}, (8, 0)),
    "windows": ("classification", {"truncation": "window", "max_tokens": 10, "stride": 1}, {}, (8, 0)),
    "regression": ("regression", {}, {}, (8, 0)),
    "tokens": ("tokens", {}, {}, (8, 0)),
    "multilabel": ("multilabel", {}, {"class_weights": "none"}, (7, 5)),
}


def made(name: str, folder: Path, weights: str):  # noqa: F811
    """The spec of a run, and its tables."""
    from . import test_run, test_run_kinds

    kind, model, train, capability = RUNS[name]
    folder.mkdir()
    train = {"epochs": 2, "device": "cpu" if capability is None else "cuda", **train}
    if kind in ("classification", "regression"):
        return test_run.task(folder, weights, kind, model=model, train=train)
    if kind == "tokens":
        for seed, part in enumerate(("train", "test")):
            test_run_kinds.write_conll(folder / f"{part}.conll", test_run_kinds.sentences(60, seed))
    else:
        for seed, part in enumerate(("train", "test")):
            test_run_kinds.write_sets(folder / f"{part}.csv", 60, seed)
    return test_run_kinds.task(folder, weights, kind, model=model, train=train)


START = """
import sys
from tests import card
Card = card.plug_in(sys.argv[1])  # before torch is imported
from tests.test_card import scenario
scenario(Card, *sys.argv[2:])
"""


def scenario(Card: type, folder: str, weights: str) -> None:  # noqa: F811
    """What the process with the card does: all runs; what they came to is printed, as JSON."""
    import torch

    torch.set_num_threads(1)
    from minibert import optim, train
    from minibert.run import run

    machine, out = Card(), {"machine": sanity(Card, torch)}
    waits: Counter = Counter()

    def watched(real):
        @functools.wraps(real)
        def call(*words, **options):
            machine.events.clear()
            found = real(*words, **options)
            waits.update(machine.events)
            return found

        return call

    train.whole_step = watched(train.whole_step)
    optim.AdamW.update = watched(optim.AdamW.update)
    for name, (*_, capability) in RUNS.items():
        machine.capability, machine.name = capability, "Tesla T4" if capability == (7, 5) else Card.name
        optim.Scaler.FIRST = (
            2.0**18 if name == "multilabel" else 2.0**12
        )  # so large that it overflows at first
        for record in (waits, machine.copies, machine.attentions):
            record.clear()
        task = made(name, Path(folder) / name, weights)
        if capability is None:
            outcome = run(task, Path(folder) / name / "out")
        else:
            with machine.plugged():
                outcome = run(task, Path(folder) / name / "out")
        asked = sorted({(str(dtype), how) for _, dtype, how in machine.attentions})
        out[name] = {
            "status": outcome.status,
            "waits": {**waits},
            "asked": asked,
            "copies": {**machine.copies},
        }
    waits.clear()
    out["pretrain"] = {"status": pretrained(machine, Path(folder), weights), "waits": {**waits}}
    optim.Scaler.FIRST = 2.0**18
    out["stopped"] = stopped(machine, Path(folder), weights, run)
    print(json.dumps(out))


def pretrained(machine, folder: Path, weights: str) -> str:  # noqa: F811
    """Going on with pre-training, on the same loop."""
    from minibert import pretrain

    from .test_run import PLAIN, TOPICS

    lines = [f"{topic} {PLAIN}" for words in TOPICS.values() for topic in words.split()]
    (folder / "text.txt").write_text("\n\n".join(lines), encoding="utf-8")
    settings = pretrain.Settings(epochs=1, batch_size=8, max_tokens=20, validation=0.2)
    with machine.plugged():
        return pretrain.pretrain(weights, folder / "text.txt", folder / "pretrained", settings, place="cuda")[
            "status"
        ]


def sanity(Card, torch) -> dict:
    """The card itself: it notices what a real one would make wait, and refuses what a real one refuses."""
    machine, seen = Card(), {}
    with machine.plugged():
        x = torch.ones(4, 3).to("cuda", non_blocking=True)
        tries = {
            "nothing": lambda: (x @ x.T).softmax(-1).sum(),
            "blocking copy": lambda: torch.ones(3).to("cuda"),
            "item": lambda: x.sum().item(),
            "if": lambda: bool(x.sum() > 0),
            "tolist": lambda: x.tolist(),
            "mask": lambda: x[x > 0],
            "bincount": lambda: torch.bincount(x.long().flatten()),
            "repeat": lambda: torch.repeat_interleave(x[0].long()),
            "unpinned": lambda: torch.ones(2**16).to("cuda", non_blocking=True),
            "pinned": lambda: torch.ones(2**16).pin_memory().to("cuda", non_blocking=True),
        }
        for name, call in tries.items():
            machine.events.clear()
            call()
            seen[name] = len(machine.events)
        for name, call in {
            "two devices": lambda: x + torch.ones(4, 3),
            "made in place": lambda: torch.tensor([1.0, 2.0], device="cuda"),
        }.items():
            with pytest.raises((RuntimeError, NotImplementedError)):
                call()
            seen[name] = "refused"
    return seen


def stopped(machine, folder: Path, weights: str, run) -> dict:  # noqa: F811
    """A float16 run on a card, stopped in its second epoch and resumed: the same losses, scales and weights."""
    import signal

    from minibert import fit

    machine.capability, machine.name = (7, 5), "Tesla T4"
    found = {}
    for name in ("whole", "stopped"):
        shutil.rmtree(folder / "again", ignore_errors=True)
        task = made("float16", folder / "again", weights)
        with machine.plugged():
            real, count = fit.log_step, []

            def log_step(*words, name=name, real=real, count=count):
                count.append(1)
                if name == "stopped" and len(count) == 12:
                    os.kill(os.getpid(), signal.SIGTERM)
                return real(*words)

            fit.log_step = log_step
            try:
                outcome = run(task, folder / name)
            finally:
                fit.log_step = real
            if name == "stopped":
                assert outcome.exit_code == 75
                run(task, folder / name, resume=True)
        lines = [json.loads(x) for x in (folder / name / "history.jsonl").read_text("utf-8").splitlines()]
        steps = [(x["step"], x["loss"], x["loss_scale"]) for x in lines if x["event"] == "step"]
        found[name] = {
            "steps": steps,
            "model": (folder / name / "model" / "model.safetensors").read_bytes().hex(),
        }
    return {"same": found["whole"] == found["stopped"], "steps": len(found["whole"]["steps"])}


@pytest.fixture(scope="module")
def found(weights, tmp_path_factory):  # noqa: F811
    """What the process with the card printed, and the folder of its runs."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if not compiler:
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("card")
    library = card.build(folder, compiler)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MINIBERT_NATIVE": "0"}
    words = [sys.executable, "-c", START, str(library), str(folder), str(weights)]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-40000:]
    return json.loads(done.stdout.splitlines()[-1]), folder


def losses(folder, name):
    lines = (folder / name / "out" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [x["loss"] for x in map(json.loads, lines) if x["event"] == "step"]


def environment(folder, name):
    return json.loads((folder / name / "out" / "environment.json").read_text(encoding="utf-8"))


def test_the_card_notices_what_would_wait(found):
    seen = found[0]["machine"]
    assert seen.pop("nothing") == seen.pop("pinned") == 0
    assert seen.pop("two devices") == seen.pop("made in place") == "refused"
    assert all(count >= 1 for count in seen.values()), seen


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if run[3]])
def test_no_step_makes_the_host_wait(found, name):
    """Nor in any kind of head, with windows, weights, LoRA, what is computed again, or a loss scale."""
    one, folder = found[0][name], found[1]
    assert one["status"] == "completed" and one["waits"] == {}
    steps = len(losses(folder, name))
    assert steps >= 8 and one["copies"]["pinned"] >= 6 * steps, (
        "tokens and what is wanted come from pinned memory"
    )


def test_pretraining_makes_no_step_wait_either(found):
    assert found[0]["pretrain"] == {"status": "completed", "waits": {}}


@pytest.mark.parametrize(
    ("name", "limit"), [("float32", 1e-5), ("tf32", 1e-5), ("bfloat16", 5e-3), ("float16", 5e-3)]
)
def test_losses_are_the_processors(found, name, limit):
    """In each number format, through the kernel that it takes."""
    wanted, got = (np.array(losses(found[1], one)) for one in ("processor", name))
    assert len(got) == len(wanted) == 18 and np.abs(got / wanted - 1).max() < limit


KERNELS = {
    "float32": ("float32", "padded", {("torch.float32", "mask"), ("torch.float32", "")}),
    "bfloat16": ("bfloat16", "varlen", {("torch.bfloat16", "varlen")}),
    "dropout": ("bfloat16", "padded", {("torch.bfloat16", "mask"), ("torch.bfloat16", "")}),
    "float16": ("float16", "padded", {("torch.float16", "mask"), ("torch.float16", "")}),
}


@pytest.mark.parametrize("name", KERNELS)
def test_each_card_trains_by_the_kernel_it_says(found, name):
    """Beside them evaluation, in float32; cuDNN is never allowed, or the run would have failed."""
    word, kernel, asked = KERNELS[name]
    made = environment(found[1], name)
    assert (made["dtype"], made["kernel"], made["device"]) == (word, kernel, "cuda:0")
    evaluation = {("torch.float32", "mask"), ("torch.float32", "")}
    assert asked <= {tuple(x) for x in found[0][name]["asked"]} <= asked | evaluation


def test_float16_leaves_steps_out_and_says_so(found):
    lines = (found[1] / "multilabel" / "out" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [x for x in map(json.loads, lines) if x["event"] == "step"]
    assert steps[0]["skipped"] and steps[0]["loss_scale"] == 2.0**18 and not steps[-1]["skipped"]
    assert steps[0]["grad_norm"] is None


def test_a_run_on_a_card_goes_on_where_it_was_stopped(found):
    assert found[0]["stopped"] == {"same": True, "steps": 18}


def test_the_report_says_what_the_card_did(found):
    page = (found[1] / "dropout" / "out" / "report.html").read_text(encoding="utf-8")
    assert (
        "Training computed in bfloat16 autocast, weights and updates in float32; attention by the kernel padded"
        in page
    )
    assert "varlen has no dropout" in page and "attention_dropout = 0 would take varlen" in page
    assert "The card’s tensors took at most 0.12 GB" in page and "card’s published peak in bfloat16" in page
    page = (found[1] / "float32" / "out" / "report.html").read_text(encoding="utf-8")
    assert "Training computed in float32, TF32 off" in page
    assert environment(found[1], "tf32")["numbers"].startswith("float32, matrix products in TF32")
