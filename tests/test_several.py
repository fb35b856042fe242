"""Two processes are one: losses, gradients, answers; and whoever ends, all end, in time and with the same reason."""

# ruff: noqa: F811  (a fixture from elsewhere)
from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import minibert
from minibert import fit, heads, lora, spec, system, wordrows
from minibert.errors import ConfigError, DataError, EnvironmentProblem, MiniBertError, OutOfMemory
from minibert.learner import Learner
from minibert.model import Model
from minibert.processes import ALONE
from minibert.recompute import recompute
from minibert.run import run
from minibert.several import Copies, joined
from minibert.tokenize import Encoded
from minibert.train import Plan, State, train

from .helpers import EVERY, toy_encoder, toy_ids
from .test_run import read, task, weights  # noqa: F401  fixture

ROOT = Path(__file__).parent.parent
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks of POSIX")
BOTH = pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
ONE_SLOW = pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
TEXTS = 23
LENGTHS = [2 + 7 * i % 19 for i in range(TEXTS)]


# --- who takes what -------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [0, 1, 2, 5, 40])
@pytest.mark.parametrize("size", [2, 3])
def test_every_text_counts_once_and_all_compute_equally_often(texts, size):
    sizes = np.random.default_rng(texts).integers(1, 60, texts).tolist()
    groups = [Copies(rank, size, "gloo", None).groups(sizes, 64) for rank in range(size)]
    counted = [i for own in groups for places, counts in own if counts for i in places]
    assert sorted(counted) == list(range(texts))
    assert len({len(own) for own in groups}) == 1
    for own in groups:
        for places, _ in own:
            assert places and (sum(sizes[i] for i in places) <= 64 or len(places) == 1)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (0, 1)),  # another launcher's: nobody to meet
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}, (1, 2)),
        ({"RANK": "", "WORLD_SIZE": "two", "MASTER_ADDR": "localhost"}, (0, 1)),
    ],
)
def test_what_torchrun_says(monkeypatch, said, found):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, word in said.items():
        monkeypatch.setenv(name, word)
    assert system.processes() == found
    if found[1] == 1:
        with joined("ddp", "cpu") as world:
            assert world is ALONE


# --- processes of a test --------------------------------------------------------------------------


def together(work, size=2, seconds=60.0, **environment):
    """What work(rank) returns, or the exception it ends with, in each of `size` processes that know one another;
    None where a process is killed. None outlives its time."""
    store = torch.distributed.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )  # as torchrun's own
    ends, children = [], []
    for rank in range(size):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            faulthandler.dump_traceback_later(seconds, exit=True)
            os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(store.port), TORCHELASTIC_USE_AGENT_STORE="True", **environment,
            )  # fmt: skip
            try:
                found = work(rank)
            except BaseException as problem:
                found = problem
            with contextlib.suppress(BaseException), os.fdopen(writing, "wb") as file:
                pickle.dump(found, file)
            os._exit(0)
        os.close(writing)
        ends.append(reading)
        children.append(child)
    out = []
    for reading, child in zip(ends, children):
        with os.fdopen(reading, "rb") as file:
            raw = file.read()
        os.waitpid(child, 0)
        out.append(pickle.loads(raw) if raw else None)
    return out


def toy(family="bert", dtype=torch.float32, attention=0.0, hidden=0.0, change=None):
    """A learner on a tiny model and random texts; with another text count than a multiple of anything."""
    encoder = toy_encoder(family, dtype=dtype)
    torch.manual_seed(5)
    head = heads.HEADS["classification"](encoder.config, 3).to(dtype)
    for part in (*encoder.modules(), *head.modules()):
        if isinstance(part, nn.Dropout):
            part.p = hidden
        if hasattr(part, "probs_dropout"):
            part.probs_dropout = attention
    ids = toy_ids(LENGTHS, vocab_size=60)
    ones = np.ones(TEXTS, np.int64)
    encoded = Encoded(ids, [[0] * len(x) for x in ids], np.arange(TEXTS + 1), ones, 0 * ones)
    model = Model(encoder, head, labels="abc")
    if change:
        change(model)
    return Learner(model, encoded, np.arange(TEXTS) % 3)


def learned(learner, plan, world=ALONE, apart=False, lengths=LENGTHS):
    """Losses and gradients of every step, as one process sees them, and the weights it ends with."""
    model = learner.model
    if apart and not world.shards:
        wordrows.set_apart(model.encoder.embeddings, set().union(*learner.encoded.ids))
    loss_of = world.join(learner, model, [model.encoder.embeddings, *model.encoder.layers])
    state = State.new(model, plan)
    update, gradients = state.optimizer.update, []

    def watched(*words):
        own = {name: p.grad for name, p in state.optimizer.trained if p.grad is not None}
        gradients.append({name: g.detach().clone().numpy() for name, g in world.whole(own).items()})
        return update(*words)

    state.optimizer.update = watched
    steps = list(train(model, loss_of, lengths, plan, state, prepare=learner.prepare, world=world))
    with world.saving(model):
        ended = {k: v.detach().clone().numpy() for k, v in model.state_dict().items()} if world.first else {}
    return [(s.loss, s.grad_norm) for s in steps], gradients, ended


def in_two(parallel, plan, size=2, apart=False, **options):
    """What the first of two processes sees of a training; the losses that the other sees are the same."""

    def work(rank):
        with joined(parallel, "cpu") as world:
            return learned(toy(**options), plan, world, apart)

    found = together(work, size)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    assert all(losses == found[0][0] for losses, *_ in found)
    return found[0]


def same(found, wanted, limit):
    """Each loss, and every gradient of each step, within `limit` of the step's largest gradient."""
    (losses, gradients, ended), (wanted_losses, wanted_gradients, wanted_ended) = found, wanted
    assert len(losses) == len(wanted_losses)
    for (loss, norm), (a, b) in zip(losses, wanted_losses):
        assert loss == pytest.approx(a, rel=max(limit, 1e-12)) and norm == pytest.approx(b, rel=10 * limit)
    for one, other in zip(gradients, wanted_gradients, strict=True):
        assert one.keys() == other.keys()
        largest = max(np.abs(g).max() for g in other.values())
        worst = max(np.abs(one[name] - other[name]).max() for name in one)
        assert worst <= limit * largest, f"{worst / largest:.1e} of the largest gradient"
    assert ended.keys() == wanted_ended.keys()
    return max(np.abs(ended[k] - wanted_ended[k]).max() for k in ended)


# --- two are one ----------------------------------------------------------------------------------


@FORKS
@ONE_SLOW
@pytest.mark.parametrize("budget", [4096, 40])
def test_two_processes_learn_what_one_does(parallel, budget):
    """In float64, through several steps, of which every third has one text."""
    plan = Plan(TEXTS, 2, 11, 1e-3, tokens_per_microbatch=budget)
    assert [len(plan.places(n)) for n in range(3)] == [11, 11, 1]
    wanted = learned(toy(dtype=torch.float64), plan)
    assert same(in_two(parallel, plan, dtype=torch.float64), wanted, 1e-12) < 1e-9


@FORKS
@ONE_SLOW
def test_the_first_gradient_is_within_1e6_of_the_largest(parallel):
    plan = Plan(TEXTS, 1, TEXTS, 1e-3, tokens_per_microbatch=64)
    same(in_two(parallel, plan), learned(toy(), plan), 1e-6)


def frozen(model):
    for part in (model.encoder.embeddings, model.encoder.layers[0]):
        part.requires_grad_(False)


def pooler(model):
    """A parameter that the loss doesn't reach."""
    model.head.pooler = nn.Linear(24, 24, dtype=model.head.out.weight.dtype)


VARIANTS = {
    "LoRA": lambda model: lora.add(model.encoder, 3),
    "frozen layers": frozen,
    "computed again": lambda model: recompute(model.encoder),
    "an unused parameter": pooler,
}


@FORKS
@ONE_SLOW
@pytest.mark.parametrize("variant", VARIANTS)
def test_whatever_learns(parallel, variant):
    plan = Plan(TEXTS, 1, 8, 1e-3, tokens_per_microbatch=50)
    options = {"dtype": torch.float64, "change": VARIANTS[variant]}
    assert same(in_two(parallel, plan, **options), learned(toy(**options), plan), 1e-12) < 1e-9


@pytest.mark.slow
@FORKS
@BOTH
def test_minilm_in_two_processes(parallel, minilm, real_texts):
    """Real weights, real texts, float32: the loss, and every gradient within 1e-6 of the largest."""

    def learner():
        options = {"labels": ("a", "b", "c"), "dropout": 0.0, "attention_dropout": 0.0, "device": "cpu"}
        model = minibert.load(minilm, head="classification", **options)
        return Learner(model, model.tokenize(real_texts[:32]), np.arange(32) % 3)

    lengths = learner().encoded.lengths.tolist()
    plan = Plan(32, 1, 32, 1e-5, tokens_per_microbatch=1024)

    def work(rank):
        with joined(parallel, "cpu") as world:
            return learned(learner(), plan, world, lengths=lengths)

    wanted, found = learned(learner(), plan, lengths=lengths), together(work, seconds=300)
    assert found[0][0] == found[1][0]
    same(found[0], wanted, 1e-6)


@pytest.mark.slow
@FORKS
@BOTH
@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("again", [False, True])
def test_every_family(parallel, family, again):
    """ALBERT's block stands for all layers, MPNet's bias by distance is every block's."""
    plan = Plan(TEXTS, 1, 8, 1e-3, tokens_per_microbatch=50)
    options = {"dtype": torch.float64, "change": VARIANTS["computed again"] if again else None}
    found = in_two(parallel, plan, family=family, **options)
    assert same(found, learned(toy(family, **options), plan), 1e-11) < 1e-8


@FORKS
@ONE_SLOW
def test_three_processes_and_fewer_texts(parallel):
    """Steps of two texts: a process without a text keeps the others company."""
    plan = Plan(5, 1, 2, 1e-3)
    wanted = learned(toy(dtype=torch.float64), plan)
    assert same(in_two(parallel, plan, 3, dtype=torch.float64), wanted, 1e-12) < 1e-9


@FORKS
@ONE_SLOW
def test_dropout_by_the_counter_drops_the_same(parallel):
    """Of attention, and of hidden states but for the head's, which torch's generator draws."""

    def no_head_dropout(model):
        for part in model.head.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0

    plan = Plan(TEXTS, 1, 8, 1e-3, tokens_per_microbatch=50)
    options = {"dtype": torch.float64, "attention": 0.3, "hidden": 0.2, "change": no_head_dropout}
    wanted = learned(toy(**options), plan)
    assert wanted[0][0] != learned(toy(dtype=torch.float64), plan)[0][0], "nothing was dropped"
    assert same(in_two(parallel, plan, **options), wanted, 1e-12) < 1e-9


@FORKS
def test_copies_learn_word_rows_apart():
    plan = Plan(TEXTS, 1, 8, 1e-3)
    found = in_two("ddp", plan, apart=True, dtype=torch.float64)
    assert same(found, learned(toy(dtype=torch.float64), plan, apart=True), 1e-12) < 1e-9


@FORKS
def test_shards_hold_half_of_everything():
    """Weights and moments: what each process keeps between two steps."""

    def work(rank):
        with joined("fsdp", "cpu") as world:
            learner, plan = toy(), Plan(TEXTS, 1, 8, 1e-3)
            model = learner.model
            world.join(learner, model, [model.encoder.embeddings, *model.encoder.layers])
            state = State.new(model, plan)
            next(train(model, learner, LENGTHS, plan, state, prepare=learner.prepare, world=world))
            kept = [*model.parameters(), *(t for s in state.optimizer.state.values() for t in s.values())]
            return sum(t.to_local().numel() for t in kept if t.dim())

    whole = 3 * sum(p.numel() for p in toy().model.parameters())
    for own in together(work):
        assert own == pytest.approx(whole / 2, rel=0.02)


# --- answers --------------------------------------------------------------------------------------


@FORKS
@ONE_SLOW
def test_every_text_is_answered_once(parallel):
    """Windows and tagged words too; before training as well, in inference mode; and it can learn afterwards."""
    windows = Encoded([[2, 3], [4], [5, 6, 7], [8, 9]], [[0, 0], [0], [0] * 3, [0, 0]], np.array([0, 1, 3, 4]),
                      np.ones(3, np.int64), np.zeros(3, np.int64))  # fmt: skip
    words = Encoded(
        windows.ids, windows.segments, windows.pieces, windows.tokens, windows.cut,
        words=np.array([1, 2, 1]), firsts=[[1], [0], [2], [0]],
    )  # fmt: skip
    alone = np.zeros(1, np.int64)
    single = Encoded([[2, 3]], [[0, 0]], np.array([0, 1]), alone + 1, alone)

    def tagger(model):
        model.head = heads.HEADS["tokens"](model.config, 3).to(torch.float64)
        torch.manual_seed(9)
        model.head.out.weight.data.normal_()

    cases = [(None, "own"), (None, windows), (tagger, words), (None, single)]

    def said(world):
        out = []
        for change, encoded in cases:
            learner = toy(dtype=torch.float64, change=change)
            encoded, plan = learner.encoded if encoded == "own" else encoded, Plan(TEXTS, 1, TEXTS, 1e-3)
            model = learner.model
            if world.shards:
                world.join(learner, model, [model.encoder.embeddings, *model.encoder.layers])
            fitted = fit.Fitted(None, model, {"test": encoded}, np.zeros(0), world=world)
            out.append(fit.answered(fitted, "test", world.agreed(system.Stop())))
            if change is None and world.shards:
                list(train(model, learner, LENGTHS, plan, prepare=learner.prepare, world=world))
        return out

    def work(rank):
        with joined(parallel, "cpu") as world:
            return said(world)

    wanted, (one, other) = said(ALONE), together(work)
    for found, again, right in zip(one, other, wanted, strict=True):
        assert np.array_equal(found, again), "all know the same"
        assert found.shape == right.shape and np.abs(found - right).max() < 1e-12 and right.min() > 0


# --- whole runs -----------------------------------------------------------------------------------

CALM = {"model": {"dropout": 0.0, "attention_dropout": 0.0}}


def calm(tmp_path, weights, parallel="ddp", **changes):
    """A run without dropout: what one process and two reach is the same."""
    settings = {"epochs": 3, "learning_rate": 5e-3, "parallel": parallel, "checkpoint_minutes": 0.0}
    return task(
        tmp_path, weights, train=settings | changes,
        model={"weights": str(weights), "max_tokens": 16, "dropout": 0.0, "attention_dropout": 0.0},
    )  # fmt: skip


def run_in_two(one, out, hook=lambda rank: None, size=2, **options):
    """The outcome, or error, of each process; the second must not write."""

    def work(rank):
        if rank:

            def refused(path):
                raise AssertionError(f"process {rank} writes {path}")

            for module in (system, minibert.checkpoint, minibert.resume.system):
                if hasattr(module, "replacing"):
                    module.replacing = refused
        hook(rank)
        found = run(one, out, **options)
        return found.status, found.exit_code

    return together(work, size)


def like(out, wanted, limit=1e-4):
    """The same answers but for rounding, and every file."""
    assert {p.name for p in out.iterdir()} == {p.name for p in wanted.iterdir()}
    a, b = (np.genfromtxt(f / "predictions.csv", delimiter=",", usecols=(5, 6, 7), skip_header=1) for f in (out, wanted))  # fmt: skip
    assert a.shape == b.shape == (45, 3) and np.abs(a - b).max() < limit
    steps, others = (
        [json.loads(line) for line in (f / "history.jsonl").read_text().splitlines()] for f in (out, wanted)
    )
    assert [s["event"] for s in steps] == [s["event"] for s in others]
    for one, other in zip(steps, others):
        assert one["loss"] == pytest.approx(other["loss"], abs=limit)
    assert read(out, "status.json") == read(wanted, "status.json")
    model, same_model = (minibert.load(f / "model") for f in (out, wanted))
    for (name, p), q in zip(model.named_parameters(), same_model.parameters()):
        assert float((p - q).detach().abs().max()) < limit, name


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    """What one process leaves."""
    tmp_path = tmp_path_factory.mktemp("calm")
    outcome = run(calm(tmp_path, weights), tmp_path / "out")
    assert outcome.metrics["test"]["accuracy"]["value"] > 0.6, "one that learns nothing would hide much"
    return tmp_path / "out"


def stopping(at, who, name="log_step", module=fit):
    """Send a signal to one process in the `at`-th step, or in another function's call."""

    def hook(rank):
        real, count = getattr(module, name), []

        def watched(*words):
            count.append(1)
            if rank == who and len(count) == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(*words)

        setattr(module, name, watched)

    return hook


@FORKS
@ONE_SLOW
def test_a_run_of_two_processes_stopped_and_resumed(parallel, whole, weights, tmp_path):
    """The signal reaches only the second process; all stop behind the same step, and one or two go on."""
    one, out = calm(tmp_path, weights, parallel), tmp_path / "out"
    assert run_in_two(one, out, stopping(14, 1)) == [("stopped", 75)] * 2
    assert "--resume" in read(out, "status.json")["message"]
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-00000014"]
    assert run_in_two(one, out, stopping(3, 0), resume=True) == [("stopped", 75)] * 2
    with pytest.MonkeyPatch.context() as patch:  # alone
        patch.setattr(fit, "log_step", fit.log_step)
        stopping(2, 0)(0)
        assert run(one, out, resume=True).exit_code == 75
    assert run_in_two(one, out, resume=True) == [("completed", 0), ("helped", 0)]
    like(out, whole)
    facts = read(out, "environment.json")
    assert (facts["processes"], facts["parallel"], facts["backend"]) == (2, parallel, "gloo")


@pytest.mark.slow
@FORKS
@BOTH
@pytest.mark.parametrize(
    ("name", "at", "who"), [("validate", 2, 1), ("predict_test", 1, 1), ("fit_baseline", 1, 0)]
)
def test_stopped_elsewhere(parallel, name, at, who, whole, weights, tmp_path):
    """In a validation, in the test texts, and in what the first process does when the others have left."""
    one, out = calm(tmp_path, weights, parallel), tmp_path / "out"
    hook = stopping(at, who, name, fit if name == "validate" else minibert.run)
    last = ("stopped", 75) if who else ("helped", 0)
    assert run_in_two(one, out, hook) == [("stopped", 75), last]
    assert len(list((out / "checkpoints").iterdir())) == 1
    assert run_in_two(one, out, resume=True) == [("completed", 0), ("helped", 0)]
    like(out, whole)


@pytest.mark.slow
@FORKS
@BOTH
@pytest.mark.parametrize(
    ("kind", "changes"),
    [("regression", {}), ("classification", {"lora_rank": 2, "recompute": True}), ("classification", {"freeze_layers": 1})],
)  # fmt: skip
def test_other_runs(parallel, kind, changes, weights, tmp_path):
    """What is saved is what one process saves, corrections and units of the targets added in."""
    two = calm(tmp_path, weights, parallel, **changes)
    one = calm(tmp_path, weights, **changes)
    if kind == "regression":
        two, one = (
            dataclasses.replace(x, task=spec.Task(name="tiny", kind=kind), data=dataclasses.replace(x.data, label="score"))
            for x in (two, one)
        )  # fmt: skip
    run(one, tmp_path / "one")
    assert run_in_two(two, tmp_path / "two") == [("completed", 0), ("helped", 0)]
    texts = ["wheat corn the", "loan rate of", "port vessel a and"]
    a, b = (minibert.load(tmp_path / name / "model").predict(texts) for name in ("one", "two"))
    numbers = [column for column in a if column.startswith(("probability", "value"))]
    assert (
        numbers
        and np.abs(a[numbers].to_numpy() - b[numbers].to_numpy()).max()
        < 1e-3 * np.abs(a[numbers].to_numpy()).max()
    )


@pytest.mark.slow
@FORKS
def test_folds_in_two_processes(weights, tmp_path):
    from .test_resume import crossed

    tables = crossed(tmp_path, weights).table()
    tables["model"] |= {"dropout": 0.0, "attention_dropout": 0.0}
    one = spec.parse(tables, folder=str(tmp_path))
    run(one, tmp_path / "one")
    assert run_in_two(one, tmp_path / "two") == [("completed", 0), ("helped", 0)]
    a, b = (read(tmp_path / name, "metrics.json")["test"] for name in ("one", "two"))
    assert a == b


# --- whoever ends, all end ------------------------------------------------------------------------


def in_step(at, who, action):
    """Do something in one process as it computes the `at`-th micro-batch."""

    def hook(rank):
        real, count = Learner.forward, []

        def watched(self, *words):
            count.append(1)
            if rank == who and len(count) == at:
                action()
            return real(self, *words)

        Learner.forward = watched

    return hook


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@FORKS
@ONE_SLOW
@pytest.mark.parametrize("who", [0, 1])
def test_when_one_is_killed_the_other_ends_at_once(parallel, who, weights, tmp_path):
    start = time.monotonic()
    found = run_in_two(calm(tmp_path, weights, parallel), tmp_path / "out", in_step(5, who, killed))
    assert time.monotonic() - start < 30 and found[who] is None
    left = found[1 - who]
    assert isinstance(left, EnvironmentProblem) and "another process of this run has ended" in str(left)
    if who == 1:
        assert read(tmp_path / "out", "status.json")["status"] == "failed"


@pytest.mark.slow
@FORKS
def test_one_that_hangs_is_given_up(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIBERT_TIMEOUT", "6")
    hanging = in_step(5, 1, lambda: time.sleep(15))
    found = run_in_two(calm(tmp_path, weights), tmp_path / "out", hanging)
    assert all(isinstance(one, EnvironmentProblem) for one in found)
    assert "does not answer since 6 s" in str(found[0])


@FORKS
def test_an_error_of_one_is_the_error_of_all(weights, tmp_path):
    """Memory that runs out in one; it alone says so, and the folder's status does."""

    def short():
        raise OutOfMemory("memory ran out: it did", "Lower something.")

    found = run_in_two(calm(tmp_path, weights), tmp_path / "out", in_step(5, 1, short))
    assert [type(one) for one in found] == [OutOfMemory] * 2 and str(found[0]) == str(found[1])
    assert "Lower something" in read(tmp_path / "out", "status.json")["message"]


@FORKS
def test_bad_input_is_told_once(weights, tmp_path):
    one, out = calm(tmp_path, weights), tmp_path / "out"
    (tmp_path / "train.csv").write_text("text,topic\nonly one,farm\n")

    def work(rank):
        try:
            run(one, out)
        except MiniBertError as problem:
            return type(problem), problem.told

    found = together(work)
    assert [kind for kind, _ in found] == [DataError] * 2 and sorted(told for _, told in found) == [
        False,
        True,
    ]
    assert not out.exists()
    out.mkdir()
    (out / "thesis.txt").write_text("mine")  # the first process looks, and the second hears of it
    assert [kind for kind, _ in together(work)] == [ConfigError] * 2
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]


@FORKS
def test_processes_that_read_different_files_are_told():
    def work(rank):
        with joined("ddp", "cpu") as world:
            world.wait(texts=5, steps=7)
            world.wait(texts=5, steps=7 + rank)

    for found in together(work):
        assert isinstance(found, ConfigError) and "steps is 7 in one and 8 in another" in str(found)


@FORKS
@ONE_SLOW
def test_a_loss_that_is_not_finite_is_seen_by_all(parallel, weights, tmp_path):
    def poison(rank):
        real = Learner.forward

        def forward(self, places, *words):
            total, count = real(self, places, *words)
            return total * (float("nan") if rank == 1 and self.training and fit_steps.append(1) is None and len(fit_steps) > 15 else 1), count  # fmt: skip

        fit_steps = []
        Learner.forward = forward

    found = run_in_two(calm(tmp_path, weights, parallel), tmp_path / "out", poison)
    assert [type(one).__name__ for one in found] == ["TrainingError"] * 2
    assert read(tmp_path / "out", "status.json")["status"] == "diverged"
    assert minibert.load(tmp_path / "out" / "model").predict(["wheat corn"]) is not None


def test_a_card_for_each_is_asked_for_by_its_kind():
    from minibert.device import own_card

    assert own_card("cpu", 1) is False
    with pytest.raises(ConfigError, match="a card for each"):
        own_card("cuda:1" if torch.cuda.device_count() > 1 else "cpu:0", 0)


# --- as people start it ---------------------------------------------------------------------------


def torchrun(*words, seconds=170, **environment):
    """The ended `torchrun --standalone --nproc-per-node 2 -m minibert ...`."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    return subprocess.run(
        [*start, "minibert", *words], capture_output=True, text=True, timeout=seconds,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.mark.slow
@BOTH
def test_torchrun(parallel, whole, weights, tmp_path):
    one = calm(tmp_path, weights, parallel)
    (tmp_path / "task.toml").write_text(one.to_toml(), encoding="utf-8")
    done = torchrun("run", str(tmp_path / "task.toml"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    like(tmp_path / "out", whole)
    assert done.stdout.count("report:") == 1 and done.stderr.count("epoch 1/3") == 1
    again = torchrun("run", str(tmp_path / "task.toml"), "--out", str(tmp_path / "out"))
    assert again.returncode == 1 and again.stderr.count("minibert: ") == 1, again.stderr
    assert "already holds a run (completed)" in again.stderr and "exitcode: 2" in again.stderr
    other = torchrun("embed", "no-model", "--input", "a.csv", "--output", "a.npy")
    assert other.returncode == 1 and other.stderr.count("is the work of one process") == 1
