"""Compiled blocks: the same numbers, few graphs whatever the lengths, and nothing that falls back in silence."""

from __future__ import annotations

import functools

import pytest
import torch

from minibert import compiled, lora
from minibert.errors import ConfigError, EnvironmentProblem
from minibert.recompute import recompute

from .helpers import EVERY, toy_batch, toy_encoder

RAGGED = [(5, 11, 2), (7, 3), (9, 9, 9), (30, 2, 1, 1), (13,), (40, 8)]
STILL = {name: 0.0 for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout",
                                "mlp_dropout", "embedding_dropout")}  # fmt: skip


@pytest.fixture
def dynamo():
    """The tracing compiler, which forgets what other tests compiled."""
    import torch._dynamo
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    yield counters
    torch._dynamo.reset()
    counters.clear()


@pytest.fixture
def traced(dynamo, monkeypatch):
    """torch.compile but for the generator of code: the graphs are traced and run as they are, in a second."""
    monkeypatch.setattr(
        torch, "compile", lambda fn, mode, dynamic: COMPILE(fn, backend="eager", dynamic=dynamic)
    )
    return dynamo


COMPILE = torch.compile


def still(family):
    known = toy_encoder(family).config.raw
    return toy_encoder(family, **{k: v for k, v in STILL.items() if k in known}).train()


def made(wish):
    encoder = still("bert")
    if wish == "lora":
        lora.add(encoder, 2)
    if wish == "frozen":
        encoder.embeddings.requires_grad_(False)
        encoder.layers[0].requires_grad_(False)
    return encoder


def trained(encoder, batches, rate=0.1):
    """Losses and gradients of a few steps."""
    learning = [p for p in encoder.parameters() if p.requires_grad]
    losses = []
    for n, lengths in enumerate(batches):
        out = encoder(toy_batch(lengths, key=(3, n)))
        loss = out.square().mean() + out[:, 0].mean()
        encoder.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in learning:
                if p.grad is not None:
                    p -= rate * p.grad
        losses.append(loss.item())
    return losses, [p.detach().clone() for p in learning]


QUICK = ("bert", "modernbert")


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in EVERY]
)
def test_the_same_numbers_from_few_graphs(family, traced):
    """Every family, lengths that never come twice: graphs are traced for the first pack, then no more."""
    wanted = trained(still(family), RAGGED)
    encoder = still(family)
    compiled.compile_blocks(encoder, "default", "cpu")
    first = trained(encoder, RAGGED[:1])
    graphs = traced["stats"]["unique_graphs"]
    forms = 2 if family == "modernbert" else 1  # its first block has no norm before attention
    assert graphs == 2 + forms, "before attention, behind it, and the rest of the block"
    found = trained(encoder, RAGGED[1:])
    assert traced["stats"]["unique_graphs"] == graphs
    assert first[0] + found[0] == pytest.approx(wanted[0], rel=1e-6)
    assert max(float((a - b).abs().max()) for a, b in zip(found[1], wanted[1])) < 1e-6
    assert set(encoder.state_dict()) == set(still(family).state_dict()), "what is saved has the same names"


def test_evaluation_is_not_compiled(traced):
    encoder = toy_encoder()
    wanted = encoder(toy_batch())
    compiled.compile_blocks(encoder, "default", "cpu")
    assert torch.equal(encoder(toy_batch()), wanted) and not traced["stats"]["unique_graphs"]
    with torch.no_grad():
        encoder.train()(toy_batch())
    assert traced["stats"]["unique_graphs"]


@pytest.mark.slow
@pytest.mark.parametrize("wish", ["lora", "recompute", "frozen"])
def test_what_else_changes_a_block_holds_with_it(wish, traced):
    wanted, encoder = trained(made(wish), RAGGED), made(wish)
    compiled.compile_blocks(encoder, "default", "cpu", recompute=wish == "recompute")
    if wish == "recompute":
        recompute(encoder)
    found = trained(encoder, RAGGED)
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    assert max(float((a - b).abs().max()) for a, b in zip(found[1], wanted[1])) < 1e-6
    assert traced["stats"]["unique_graphs"] <= 12


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
def test_a_compiled_block_is_computed_again_where_that_is_asked_for(again, traced, monkeypatch):
    calls, real = [], compiled.in_line
    monkeypatch.setattr(compiled, "in_line", lambda *words: calls.append(1) or real(*words))
    encoder = toy_encoder().train()
    compiled.compile_blocks(encoder, "default", "cpu", recompute=again)
    if again:
        recompute(encoder)
    out = encoder(toy_batch())
    once = len(calls)
    out.sum().backward()
    assert once == len(encoder.layers) and len(calls) == (2 if again else 1) * once


def test_dropout_is_a_function_of_the_seed(traced):
    encoder = toy_encoder().train()
    compiled.compile_blocks(encoder, "default", "cpu")

    def once(seed):
        torch.manual_seed(seed)
        return encoder(toy_batch())

    assert torch.equal(once(1), once(1)) and not torch.equal(once(1), once(2))


def test_a_block_that_is_compiled_again_and_again_ends_the_run(dynamo, monkeypatch):
    """Where torch alone would warn and go on uncompiled."""
    import torch._dynamo

    fixed = functools.partial(COMPILE, backend="eager")
    monkeypatch.setattr(torch, "compile", lambda fn, mode, dynamic: fixed(fn, dynamic=False))
    encoder = toy_encoder().train()
    compiled.compile_blocks(encoder, "default", "cpu")
    said = r'\[train\] compile = "default" failed: .*recompile'
    few = torch._dynamo.config.patch(recompile_limit=1)  # monkeypatch would put it back by hiding it
    with few, pytest.raises(EnvironmentProblem, match=said), compiled.problems_named("default"):
        trained(encoder, RAGGED)
    assert not torch._dynamo.config.fail_on_recompile_limit_hit, "put back"


@pytest.mark.parametrize(
    ("way", "device", "again", "why"),
    [
        ("reduce-overhead", "cpu", False, "CUDA graphs need a CUDA card"),
        ("reduce-overhead", "cuda", True, "with recompute"),
        ("default", "mps", False, "never tried on mps"),
    ],
)
def test_what_does_not_hold_is_refused(way, device, again, why):
    with pytest.raises(ConfigError, match=why):
        compiled.compile_blocks(toy_encoder(), way, device, again)


@pytest.mark.parametrize(("way", "several"), [("default", "fsdp"), ("reduce-overhead", "ddp")])
def test_what_was_never_tried_with_several_processes_is_refused(way, several):
    with pytest.raises(ConfigError, match=f"several processes .{several}."):
        compiled.compile_blocks(toy_encoder(), way, "cuda", several=several)


def test_other_problems_keep_their_names():
    with pytest.raises(ZeroDivisionError), compiled.problems_named("default"):
        _ = 1 / 0


def test_packs_are_filled_to_few_sizes():
    sizes = [compiled.size(n, 1000) for n in range(1, 1001)]
    assert all(n <= size < n + 125 for n, size in zip(range(1, 1001), sizes))
    assert len(set(sizes)) == compiled.SIZES and max(sizes) == 1000
    assert compiled.size(1001, 1000) == 1125, "a text longer than the budget"


def test_gradients_are_moved_out_of_the_graphs_memory():
    weight = torch.nn.Parameter(torch.ones(3))
    weight.register_post_accumulate_grad_hook(compiled.own)
    memory = torch.ones(3)
    for _ in range(2):  # what a captured graph does: its output's memory is written again
        memory.fill_(2.0)
        weight.backward(memory)
        memory.fill_(-1.0)
    assert weight.grad.tolist() == [4.0] * 3


@pytest.mark.slow
@pytest.mark.parametrize("wish", ["", "lora", "recompute"])
def test_compiled_by_inductor(wish, dynamo):
    """The real thing, in C++ on a processor: within rounding, three graphs for all lengths, dropout reproducible."""
    wanted, encoder = trained(made(wish), RAGGED), made(wish)
    compiled.compile_blocks(encoder, "default", "cpu", recompute=wish == "recompute")
    if wish == "recompute":
        recompute(encoder)
    found = trained(encoder, RAGGED)
    # LoRA: the first block's input needs no gradient, the others' do; recompute: the second pass is another call
    assert dynamo["stats"]["unique_graphs"] <= (6 if wish else 3)
    assert found[0] == pytest.approx(wanted[0], rel=1e-5, abs=1e-5)
    assert max(float((a - b).abs().max()) for a, b in zip(found[1], wanted[1])) < 1e-5
    encoder = toy_encoder().train()
    compiled.compile_blocks(encoder, "default", "cpu", recompute=wish == "recompute")
    if wish == "recompute":
        recompute(encoder)
    again = []
    for _ in range(2):
        torch.manual_seed(1)
        out = encoder(toy_batch())
        again.append(
            [out, *torch.autograd.grad(out.square().sum(), list(encoder.parameters()), allow_unused=True)]
        )
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(*again))
    assert not torch.equal(encoder(toy_batch()), again[0][0])


@pytest.mark.slow
def test_no_compiler_is_told(dynamo):
    import torch._inductor.config as inductor

    none = inductor.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True})
    encoder = toy_encoder().train()
    compiled.compile_blocks(encoder, "default", "cpu")
    said = r'compile = "default" failed: .*\n.*compiler for C\+\+'
    with none, pytest.raises(EnvironmentProblem, match=said), compiled.problems_named("default"):
        trained(encoder, RAGGED[:1])


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["default", "reduce-overhead"])
def test_compiled_on_the_card(way, dynamo):
    """Fixed sizes, several micro-batches a step: the gradients are those of the uncompiled encoder."""
    found = []
    for one in ("none", way):
        encoder = still("bert").cuda()
        compiled.compile_blocks(encoder, one, "cuda")
        for turn in range(6):
            encoder.zero_grad()
            for lengths in RAGGED[:3]:
                batch = toy_batch(lengths, fill_to=32, key=(3, turn)).to("cuda")
                encoder(batch)[: sum(lengths)].square().sum().backward()
        found.append([p.grad.cpu() for p in encoder.parameters() if p.grad is not None])
    largest = max(float(g.abs().max()) for g in found[0])
    gaps = [float((a - b).abs().max()) / largest for a, b in zip(*found, strict=True)]
    assert max(gaps) < 1e-5, max(gaps)
