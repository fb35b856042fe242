"""The loop on toy models: sums over counts, order, seeds, clipping, and stopping on what is not finite."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from minibert import optim
from minibert.errors import DataError, OutOfMemory, TrainingError
from minibert.processes import ALONE
from minibert.train import Ahead, Plan, State, train, whole_step

TEXTS = 23
INPUTS = torch.randn(TEXTS, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGETS = torch.arange(TEXTS) % 3
LENGTHS = [3 + 7 * i % 11 for i in range(TEXTS)]


def toy(dropout=0.0, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Dropout(dropout), nn.Linear(8, 3)).double()


def loss_of(model):
    def loss(places, key):
        return F.cross_entropy(model(INPUTS[places]), TARGETS[places], reduction="sum"), torch.tensor(
            float(len(places))
        )

    return loss


def run(plan, dropout=0.0):
    model = toy(dropout)
    steps = list(train(model, loss_of(model), LENGTHS, plan))
    return steps, [p.detach().clone() for p in model.parameters()]


def test_micro_batches_equal_the_whole_batch():
    whole, left = run(Plan(TEXTS, 3, 8, 1e-2, tokens_per_microbatch=10**6))
    parts, right = run(Plan(TEXTS, 3, 8, 1e-2, tokens_per_microbatch=16))
    assert [s.loss for s in whole] == pytest.approx([s.loss for s in parts], rel=1e-12)
    assert max(float((a - b).abs().max()) for a, b in zip(left, right)) < 1e-12


def test_it_equals_plain_torch():
    """The same updates by a loss that is a mean, clip_grad_norm_ and the textbook AdamW."""
    plan = Plan(TEXTS, 2, 8, 1e-2, clip=0.5, weight_decay=0.1)
    steps, ours = run(plan)
    model = toy()
    groups = optim.parameter_groups(model, 0.1)
    optimizer = torch.optim.AdamW(groups)
    for number, step in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(number)
        places = plan.places(number)
        loss = F.cross_entropy(model(INPUTS[places]), TARGETS[places])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        assert step.loss == pytest.approx(loss.item(), rel=1e-12)
        assert step.grad_norm == pytest.approx(float(norm), rel=1e-12)
    assert max((a - b).abs().max().item() for a, b in zip(ours, model.parameters())) < 1e-12


def test_every_text_comes_once_an_epoch_and_each_epoch_in_another_order():
    plan = Plan(TEXTS, 2, 8, 1e-2)
    orders = [[p for s in range(e * 3, e * 3 + 3) for p in plan.places(s)] for e in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(TEXTS))
    assert orders[0] != orders[1]
    assert [len(plan.places(s)) for s in range(3)] == [8, 8, 7]


def test_steps_are_numbered_and_epochs_end():
    steps, _ = run(Plan(TEXTS, 2, 8, 1e-2))
    assert [s.step for s in steps] == [1, 2, 3, 4, 5, 6]
    assert [s.epoch for s in steps] == [1, 1, 1, 2, 2, 2]
    assert [s.ends_epoch for s in steps] == [False, False, True] * 2
    assert steps[0].tokens == sum(LENGTHS[p] for p in Plan(TEXTS, 2, 8, 1e-2).places(0))


def test_equal_seeds_give_equal_weights_and_each_seed_matters():
    base = run(Plan(TEXTS, 2, 8, 1e-2), dropout=0.3)[1]
    same = run(Plan(TEXTS, 2, 8, 1e-2), dropout=0.3)[1]
    order = run(Plan(TEXTS, 2, 8, 1e-2, order_seed=1), dropout=0.3)[1]
    drop = run(Plan(TEXTS, 2, 8, 1e-2, dropout_seed=1), dropout=0.3)[1]
    assert all(torch.equal(a, b) for a, b in zip(base, same))
    assert not torch.equal(base[0], order[0]) and not torch.equal(base[0], drop[0])


@pytest.mark.parametrize("done", [0, 1, 2, 3, 5, 6])
def test_it_goes_on_from_any_step_bit_for_bit(done):
    """Weights and State, moved as tensors into a new model, give the steps that were still to come."""
    plan = Plan(TEXTS, 2, 8, 1e-2, tokens_per_microbatch=16)
    whole, wanted = run(plan, dropout=0.3)
    model = toy(0.3)
    state = State.new(model, plan)
    list(itertools.islice(train(model, loss_of(model), LENGTHS, plan, state), done))
    assert state.step == done
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    kept = {name: t.clone() for name, t in optim.moments(model, state.optimizer).items()}
    assert len(kept) == (3 * len(weights) if done else 0)

    other = toy(0.3, seed=1)
    other.load_state_dict(weights)
    again = State.new(other, plan)
    again.step = done
    optim.set_moments(other, again.optimizer, kept)
    rest = list(train(other, loss_of(other), LENGTHS, plan, again))
    assert [(s.step, s.loss, s.grad_norm) for s in rest] == [
        (s.step, s.loss, s.grad_norm) for s in whole[done:]
    ]
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), wanted))


def test_a_broken_loss_stops_before_any_weight_changes():
    model = toy()
    before = [p.detach().clone() for p in model.parameters()]

    def broken(places, key):
        total, count = loss_of(model)(places, key)
        return total * float("nan"), count

    with pytest.raises(TrainingError, match=r"step 1.*not finite") as caught:
        list(train(model, broken, LENGTHS, Plan(TEXTS, 1, 8, 1e-2)))
    assert caught.value.exit_code == 1 and "learning_rate" in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_a_broken_gradient_under_a_finite_loss_stops_too():
    model = toy()
    model[0].weight.register_hook(lambda g: g * float("inf"))
    with pytest.raises(TrainingError, match="gradient norm"):
        list(train(model, loss_of(model), LENGTHS, Plan(TEXTS, 1, 8, 1e-2)))


# --- float16's loss scale -------------------------------------------------------------------------


def scaled_run(plan, dtype=torch.float32, broken=(), seed=0):
    """The toy in float32, its gradients made infinite in some steps (counted from 1); steps, and the weights after each."""
    model = toy(seed=seed).float()
    now, weights = [0], []

    def loss(places, key):
        now[0] = key[1] + 1
        logits = model(INPUTS[places].float()).to(dtype).float()
        return F.cross_entropy(logits, TARGETS[places], reduction="sum"), torch.tensor(float(len(places)))

    model[0].weight.register_hook(lambda g: g * float("inf") if now[0] in broken else g)
    steps = []
    for step in train(model, loss, LENGTHS, plan):
        steps.append(step)
        weights.append([p.detach().clone() for p in model.parameters()])
    return steps, weights


def test_a_scale_that_never_overflows_changes_no_bit():
    """It is a power of two: what is multiplied by it before the backward pass is divided by it after."""
    plain, wanted = scaled_run(Plan(TEXTS, 2, 8, 1e-2))
    steps, weights = scaled_run(Plan(TEXTS, 2, 8, 1e-2, scaled=True))
    assert [s.loss for s in steps] == [s.loss for s in plain]
    assert [s.grad_norm for s in steps] == pytest.approx([s.grad_norm for s in plain], rel=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(weights[-1], wanted[-1]))
    assert {s.loss_scale for s in steps} == {optim.Scaler.FIRST} and not any(s.skipped for s in steps)
    assert {s.loss_scale for s in plain} == {None}


def test_a_step_that_overflows_is_left_out_and_the_next_one_learns():
    steps, weights = scaled_run(Plan(TEXTS, 2, 8, 1e-2, scaled=True), broken=(3, 4))
    assert [s.skipped for s in steps] == [False, False, True, True, False, False]
    assert [s.loss_scale / optim.Scaler.FIRST for s in steps] == [1, 1, 1, 0.5, 0.25, 0.25]
    assert all(torch.equal(a, b) for a, b in zip(weights[1], weights[3])), "no weight changes"
    assert not torch.equal(weights[3][0], weights[4][0])
    assert not math.isfinite(steps[2].grad_norm) and math.isfinite(steps[2].loss)


def test_moments_of_a_step_that_is_left_out_stay_as_they_were():
    model = toy().float()
    state = State.new(model, Plan(TEXTS, 1, 8, 1e-2, scaled=True))
    for value in (1.0, float("inf")):
        for p in model.parameters():
            p.grad = torch.full_like(p, value)
        before = {k: t.clone() for k, t in optim.moments(model, state.optimizer).items()}
        state.optimizer.update(1e-2, torch.tensor(1.0), torch.tensor(1.0), 1.0, scaler=state.scaler)
    after = optim.moments(model, state.optimizer)
    assert len(before) == 3 * 6 and all(torch.equal(before[k], after[k]) for k in after)
    assert state.scaler.facts() == [optim.Scaler.FIRST / 2, 0]


def test_a_loss_that_is_not_finite_is_an_error_in_float16_too():
    model = toy().float()

    def broken(places, key):
        return model(INPUTS[places].float()).sum() * float("nan"), torch.tensor(8.0)

    with pytest.raises(TrainingError, match=r"step 1.*not finite"):
        list(train(model, broken, LENGTHS, Plan(TEXTS, 1, 8, 1e-2, scaled=True)))


def test_a_scale_that_falls_without_end_is_an_error():
    with pytest.raises(
        TrainingError, match=r"step 23: gradients overflow float16 however small .*0\.000976562"
    ):
        scaled_run(Plan(TEXTS, 20, 8, 1e-2, scaled=True), broken=range(1, 99))


def test_the_scale_moves_as_torchs_own_scaler_does(monkeypatch):
    monkeypatch.setattr(optim.Scaler, "EVERY", 4)
    ours = optim.Scaler(torch.device("cpu"))
    theirs = torch.amp.GradScaler("cpu", init_scale=ours.FIRST, growth_interval=4)
    weight = nn.Parameter(torch.ones(3))
    plain = torch.optim.SGD([weight], lr=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        overflows = bool(torch.rand((), generator=generator) < 0.2)
        assert float(theirs.scale(torch.ones(()))) == float(ours.scale)
        weight.grad = torch.full((3,), float("inf") if overflows else 1.0)
        theirs.step(plain)
        theirs.update()
        ours.follow(torch.tensor(float(overflows)))
    assert theirs.state_dict()["_growth_tracker"] == ours.facts()[1]
    other = optim.Scaler(torch.device("cpu"))
    other.restore(ours.facts())
    assert other.facts() == ours.facts() != optim.Scaler(torch.device("cpu")).facts()


def test_real_float16_overflows_at_first_and_then_learns(monkeypatch):
    """Logits in float16 whose gradients, at so large a scale, lie beyond 65,504: it finds a scale that holds."""
    monkeypatch.setattr(optim.Scaler, "FIRST", 2.0**24)
    steps, weights = scaled_run(Plan(TEXTS, 8, 8, 1e-2, scaled=True), dtype=torch.float16)
    skipped = [s.skipped for s in steps]
    assert 7 <= sum(skipped) <= 10 and skipped == sorted(skipped, reverse=True), "at first, and never again"
    moved = [not torch.equal(a[0], b[0]) for a, b in zip(weights, weights[1:])]
    assert moved == [not left_out for left_out in skipped[1:]] and math.isfinite(steps[-1].loss)


def test_nothing_to_train_is_an_error():
    model = toy()
    for p in model.parameters():
        p.requires_grad_(False)
    with pytest.raises(TrainingError, match="trainable"):
        list(train(model, loss_of(model), LENGTHS, Plan(TEXTS, 1, 8, 1e-2)))
    with pytest.raises(TrainingError, match="no step"):
        list(train(toy(), loss_of(model), [], Plan(0, 1, 8, 1e-2)))


def test_frozen_parts_stay_as_they_are():
    model = toy()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    list(train(model, loss_of(model), LENGTHS, Plan(TEXTS, 1, 8, 1e-2)))
    assert torch.equal(before, model[0].weight)


def test_train_mode_is_on_in_every_step_even_after_an_evaluation():
    model = toy()
    modes = []

    def loss(places, key):
        modes.append(model.training)
        return loss_of(model)(places, key)

    for _ in train(model, loss, LENGTHS, Plan(TEXTS, 2, 8, 1e-2)):
        model.eval()
    assert modes and all(modes)


class Short:
    """A loss whose memory holds so many tokens, forward or, where `late`, backward."""

    def __init__(self, model, tokens, late=False):
        self.model, self.tokens, self.late, self.sizes = model, tokens, late, []

    def __call__(self, places, key):
        size = sum(LENGTHS[p] for p in places)
        self.sizes.append(size)
        if size > self.tokens and not self.late:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        total, count = loss_of(self.model)(places, key)
        if size > self.tokens:
            total.register_hook(self.breaks)
        return total, count

    def breaks(self, grad):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes")  # fmt: skip


LIMITED = """
import resource, sys, torch
from minibert.train import Plan, State, train
model = torch.nn.Linear(4, 1).double()
for p in model.parameters(): torch.nn.init.constant_(p, 0.1)
def loss_of(places, key):
    wide = torch.ones(len(places), 2**21, 4, dtype=torch.float64) * torch.tensor(places)[:, None, None]  # 64 MB a text
    return model(wide).mean(1).exp().sum(), torch.tensor(float(len(places)))
state = State.new(model, plan := Plan(16, 1, 16, 1e-2, tokens_per_microbatch=16000))
if sys.argv[1] == "short":
    taken = int(next(x for x in open("/proc/self/status") if x.startswith("VmSize")).split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (taken + 900 * 2**20,) * 2)
for step in train(model, loss_of, [1000] * 16, plan, state):
    print(repr(step.loss), step.grad_norm, step.tokens_per_microbatch)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_a_process_that_really_runs_short_goes_on():
    told = {}
    for how in ("enough", "short"):
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, how], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
        told[how] = [line.split() for line in done.stdout.splitlines()]
    for enough, short in zip(told["enough"], told["short"], strict=True):
        assert float(enough[0]) == pytest.approx(float(short[0]), rel=1e-8), "two million numbers are summed"
        assert float(enough[1]) == pytest.approx(float(short[1]), rel=1e-8)
    assert int(told["short"][0][2]) < int(told["enough"][0][2]) == 16000, "it was split"


@pytest.mark.parametrize("late", [False, True])
def test_a_step_that_memory_is_too_short_for_is_split_and_comes_to_the_same(late):
    whole, wanted = run(Plan(TEXTS, 2, 8, 1e-2))
    model, plan = toy(), Plan(TEXTS, 2, 8, 1e-2)
    short = Short(model, 20, late)
    state = State.new(model, plan)
    steps = list(train(model, short, LENGTHS, plan, state))
    assert [s.loss for s in steps] == pytest.approx([s.loss for s in whole], rel=1e-12)
    assert [s.grad_norm for s in steps] == pytest.approx([s.grad_norm for s in whole], rel=1e-12)
    assert max(float((a - b.detach()).abs().max()) for a, b in zip(wanted, model.parameters())) < 1e-12
    assert max(short.sizes) > 20 >= state.budget and steps[0].tokens_per_microbatch == state.budget
    assert short.sizes.index(max(short.sizes)) == 0 and sum(size > 20 for size in short.sizes) <= 3


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
def test_a_step_of_a_real_encoder_that_is_split_has_every_gradient(minilm, real_texts, late):
    """MiniLM with a new head, without dropout: forward or backward, loss and gradients of a step that was not split."""
    from minibert import load
    from minibert.learner import Learner

    texts = real_texts[:12]
    model = load(
        minilm, head="classification", labels=("a", "b"), device="cpu", dropout=0.0, attention_dropout=0.0
    )
    learner = Learner(model.train(), model.tokenize(texts), np.arange(12) % 2)
    lengths = learner.encoded.lengths.tolist()
    plan = Plan(12, 1, 12, 1e-3)

    def step(most):
        model.zero_grad()
        state, sizes = State.new(model, plan), []

        def loss(places, batch, wanted):
            size = sum(lengths[place] for place in places)
            sizes.append(size)
            if size > most and not late:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            total, count = learner(places, batch, wanted)
            if size > most:
                total.register_hook(Short(None, 0).breaks)
            return total, count

        with Ahead(learner.prepare, lengths, plan, ALONE) as ahead:
            total, count = whole_step(loss, ahead, 0, state, ALONE)
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        return float(total / count), grads, len(sizes)

    loss, wanted, once = step(10**9)
    again, found, parts = step(sum(lengths) // 3)
    assert once == 1 and parts > 3 and again == pytest.approx(loss, rel=1e-6)
    largest = max(float(g.abs().max()) for g in wanted.values())
    assert wanted.keys() == found.keys()
    assert max(float((found[n] - g).abs().max()) for n, g in wanted.items()) < 1e-6 * largest


def test_a_text_that_memory_is_too_short_for_ends_it_and_no_weight_has_changed():
    model = toy()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(OutOfMemory, match=r"memory ran out.*\n.*tokens_per_microbatch"):
        list(train(model, Short(model, 2), LENGTHS, Plan(TEXTS, 1, 8, 1e-2)))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_norms_by_layer_make_the_norm_of_all():
    steps, _ = run(Plan(TEXTS, 1, 8, 1e-2))
    for step in steps:
        assert math.hypot(*step.layer_norms.values()) == pytest.approx(step.grad_norm, rel=1e-9)


def test_texts_are_made_ready_in_a_thread_a_step_ahead():
    model, made, used = toy(), [], []

    def prepare(places, key):
        made.append((key[1], threading.current_thread() is threading.main_thread()))
        return INPUTS[places], TARGETS[places]

    def loss(inputs, targets):
        used.append(len(made))
        return F.cross_entropy(model(inputs), targets, reduction="sum"), torch.tensor(float(len(targets)))

    plan = Plan(TEXTS, 2, 8, 1e-2)
    found = [s.loss for s in train(model, loss, LENGTHS, plan, prepare=prepare)]
    assert found == pytest.approx([s.loss for s in run(plan)[0]], rel=1e-12)
    assert made == [(0, True)] + [(n, False) for n in range(1, 6)], (
        "each once, and only the first is waited for"
    )


def test_what_fails_in_the_thread_is_raised():
    def prepare(places, key):
        if key[1] == 2:
            raise DataError("text 7 has no tokens")
        return places, key

    model, steps = toy(), []
    with pytest.raises(DataError, match="text 7"):
        for step in train(model, loss_of(model), LENGTHS, Plan(TEXTS, 2, 8, 1e-2), prepare=prepare):
            steps.append(step)
    assert len(steps) == 2


def test_biases_and_layernorm_do_not_decay():
    model = toy()
    decaying, rest = optim.parameter_groups(model, 0.1)
    assert decaying["weight_decay"] == 0.1 and rest["weight_decay"] == 0.0
    assert {id(p) for p in decaying["params"]} == {id(model[0].weight), id(model[3].weight)}
    assert len(rest["params"]) == 4


@pytest.mark.parametrize(("total", "warmup"), [(10, 0.0), (10, 0.1), (7, 0.5), (1, 0.1), (100, 1.0)])
def test_the_rate_rises_then_falls(total, warmup):
    rates = [optim.learning_rate(s, total, warmup, 2.0) for s in range(total)]
    rising = math.ceil(warmup * total)
    assert all(a < b for a, b in zip(rates[:rising], rates[1 : rising + 1])) or rising == total
    assert all(a > b for a, b in zip(rates[rising:], rates[rising + 1 :]))
    assert max(rates) <= 2.0 and min(rates) >= 0.0
    if rising < total:
        assert rates[rising] == 2.0


def test_a_single_step_learns():
    assert optim.learning_rate(0, 1, 0.1, 2.0) == 2.0


def test_depths_are_read_off_names():
    names = (
        "encoder.embeddings.word.weight",
        "encoder.layers.4.attn.query.bias",
        "encoder.final_norm.weight",
        "head.out.bias",
    )
    assert [optim.depth_of(name) for name in names] == [0, 5, None, None]
    assert optim.depth_of("encoder.distance.weight") == 0


def test_layers_below_move_less():
    """Rates by depth: the head's whole, each layer below it 0.5 of the one above, and every parameter once."""
    from .helpers import toy_encoder

    encoder = toy_encoder()
    groups = optim.parameter_groups(encoder, 0.1, 0.5)
    scales = {
        name: g["scale"]
        for g in groups
        for p in g["params"]
        for name, q in encoder.named_parameters()
        if q is p
    }
    assert len(scales) == sum(len(g["params"]) for g in groups) == len(list(encoder.parameters()))
    assert scales["layers.2.ffn.up.weight"] == 0.5 and scales["layers.0.ffn.up.weight"] == 0.125
    assert scales["embeddings.word.weight"] == 0.0625
    decays = {g["weight_decay"] for g in groups for p in g["params"] if p.dim() > 1}
    assert decays == {0.1} and {g["weight_decay"] for g in groups for p in g["params"] if p.dim() < 2} == {
        0.0
    }
    assert {g["scale"] for g in optim.parameter_groups(encoder, 0.1)} == {1.0}
