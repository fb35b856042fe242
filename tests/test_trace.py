"""Every intermediate result by name: bitwise what a plain call computes, and the encoder left as it was."""

from __future__ import annotations

import pytest
import torch

from minibert import kernels
from minibert.batch import pack
from minibert.errors import DataError

from .helpers import EVERY, FAMILIES, LENGTHS, TOLERANCES, close, toy_batch, toy_encoder

KERNELS = ("reference", "sdpa", "padded")
PARTS = [
    "query",
    "key",
    "value",
    "scores",
    "probs",
    "context",
    "attn_out",
    "attn_normed",
    "ffn_up",
    "ffn_act",
    "ffn_out",
    "ffn_normed",
]
NAMES = [f"embeddings.{x}" for x in ("word", "position", "segment", "sum", "normed")]
NAMES += [f"layers.{i}.{x}" for i in range(3) for x in PARTS]

SHAPES = {"query": (18, 4, 6), "key": (18, 4, 6), "value": (18, 4, 6), "context": (18, 4, 6)}
SHAPES |= {"ffn_up": (18, 37), "ffn_act": (18, 37)}


@pytest.fixture(params=KERNELS)
def kernel(request):
    return request.param


def hooks(encoder):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in encoder.modules())


def test_names_and_shapes():
    trace = toy_encoder().trace(toy_batch())
    assert list(trace) == NAMES and len(trace) == len(NAMES)
    for name, value in trace.items():
        part = name.rpartition(".")[2]
        if part in ("scores", "probs"):
            assert [tuple(x.shape) for x in value] == [(4, n, n) for n in LENGTHS]
        else:
            assert tuple(value.shape) == SHAPES.get(part, (18, 24)), name
    assert trace.layout.lengths == LENGTHS


@pytest.mark.parametrize("family", FAMILIES)
def test_bitwise_what_plain_calls_of_the_parts_give(family, kernel):
    """Walk the encoder by hand, without a hook, and meet every traced tensor."""
    encoder, batch = toy_encoder(family, kernel), toy_batch()
    same = torch.equal
    with torch.no_grad():
        trace = encoder.trace(batch)
        e = encoder.embeddings
        assert same(trace["embeddings.word"], e.word(batch.token_ids))
        assert same(trace["embeddings.position"], e.position(batch.positions + e.position_offset))
        assert same(trace["embeddings.segment"], e.segment(batch.segments))
        hidden = e(batch)
        assert same(trace["embeddings.normed"], hidden) and same(e.norm(trace["embeddings.sum"]), hidden)
        for i, block in enumerate(encoder.layers):
            seen = {part: trace[f"layers.{i}.{part}"] for part in PARTS}
            for part in ("query", "key", "value"):
                assert same(seen[part], getattr(block.attn, part)(hidden).view(18, 4, 6))
            q, k, v = seen["query"], seen["key"], seen["value"]
            assert same(seen["context"], kernels.attend(kernel, q, k, v, batch.layout, scale=6**-0.5))
            assert same(seen["attn_out"], block.attn(hidden, batch.layout))
            assert same(seen["attn_normed"], block.attn_norm(hidden + seen["attn_out"]))
            assert same(seen["ffn_up"], block.ffn.up(seen["attn_normed"]))
            assert same(seen["ffn_act"], torch.nn.functional.gelu(seen["ffn_up"]))
            assert same(seen["ffn_out"], block.ffn(seen["attn_normed"]))
            hidden = block(hidden, batch.layout)
            assert same(seen["ffn_normed"], hidden)
        assert same(trace.output, hidden) and same(trace.output, encoder(batch))


def test_probabilities_sum_to_1_and_rebuild_the_context(kernel):
    trace = toy_encoder(kernel=kernel).trace(toy_batch())
    for i in range(3):
        values = trace[f"layers.{i}.value"].split(LENGTHS)
        contexts = trace[f"layers.{i}.context"].split(LENGTHS)
        for looks, probs, v, context in zip(
            trace[f"layers.{i}.scores"], trace[f"layers.{i}.probs"], values, contexts, strict=True
        ):
            assert torch.equal(probs, looks.softmax(-1))
            assert (probs.sum(-1) - 1).abs().max() < TOLERANCES["rows of probabilities"].value
            close(torch.einsum("hij,jhk->ihk", probs, v), context, "rebuilt context")


def test_minilms_probabilities_rebuild_its_context(minilm, real_texts):
    import minibert

    model = minibert.load(minilm, head=None, device="cpu")
    encoded = model.tokenize(real_texts[:6], max_tokens=120)
    with torch.no_grad():
        trace = model.trace(model.pack(encoded, range(6)))
    lengths = trace.layout.lengths
    for i in range(6):
        for probs, v, context in zip(
            trace[f"layers.{i}.probs"],
            trace[f"layers.{i}.value"].split(lengths),
            trace[f"layers.{i}.context"].split(lengths),
            strict=True,
        ):
            close(torch.einsum("hij,jhk->ihk", probs, v), context, "rebuilt context")


def test_with_the_reference_kernel_they_are_the_ones_used(monkeypatch):
    from minibert.kernels import reference

    used, plain = [], reference.probabilities

    def listening(scores_text):
        used.append(plain(scores_text))
        return used[-1]

    monkeypatch.setattr(reference, "probabilities", listening)
    trace = toy_encoder(kernel="reference").trace(toy_batch())
    traced = [probs for i in range(3) for probs in trace[f"layers.{i}.probs"]]
    assert len(used) == len(traced) == 9
    assert all(torch.equal(a, b) for a, b in zip(used, traced))


def test_filler_has_no_probabilities(kernel):
    encoder = toy_encoder(kernel=kernel)
    trace, plain = encoder.trace(toy_batch(fill_to=25)), encoder.trace(toy_batch())
    for i in range(3):
        assert len(trace[f"layers.{i}.probs"]) == 3
        for a, b in zip(trace[f"layers.{i}.probs"], plain[f"layers.{i}.probs"]):
            close(a, b, "hidden float32")


def test_no_hook_stays(kernel):
    encoder = toy_encoder(kernel=kernel)
    encoder.trace(toy_batch())
    assert hooks(encoder) == 0
    with pytest.raises(DataError):
        encoder.trace(pack([[1] * 99]))
    assert hooks(encoder) == 0


def test_training_mode_is_traced_too(kernel):
    """Dropout included: what follows a dropped tensor is traced as it was; probabilities before dropout."""
    encoder, batch = toy_encoder(kernel=kernel).train(), toy_batch()
    torch.manual_seed(5)
    trace = encoder.trace(batch)
    torch.manual_seed(5)
    assert torch.equal(trace.output, encoder(batch))
    assert encoder.training and not trace.output.requires_grad
    assert all((p.sum(-1) - 1).abs().max() < 1e-6 for p in trace["layers.0.probs"])


def test_no_texts():
    trace = toy_encoder().trace(pack([]))
    assert list(trace) == NAMES and trace["layers.0.probs"] == () and trace.output.shape == (0, 24)


def test_a_name_that_is_not_there_has_a_nearest():
    with pytest.raises(KeyError, match='did you mean "layers.0.probs"'):
        toy_encoder().trace(toy_batch())["layers.0.prob"]


@pytest.mark.parametrize("family", EVERY)
def test_every_family_has_its_own_parts(family, kernel):
    """Names in order, what the family lacks is lacking, and the probabilities rebuild the kernel's output."""
    encoder, batch = toy_encoder(family, kernel), toy_batch()
    trace, c = encoder.trace(batch), encoder.config
    has = {name.split(".")[-1] for name in trace}
    assert ("segment" in has) == bool(c.num_segments) and ("position" in has) == (not c.rotary)
    assert ("projected" in has) == c.projected and ("ffn_gate" in has) == c.facts.gated
    assert ("final_normed" in trace) == ("layers.0.out" in trace) == c.facts.pre_norm
    assert ("layers.0.attn_normed" in trace) and torch.equal(trace.output, encoder(batch))
    layers = [int(name.split(".")[1]) for name in trace if name.startswith("layers.")]
    assert layers == sorted(layers) and set(layers) == set(range(c.num_layers))
    for i, block in enumerate(encoder.walk()):
        values = trace[f"layers.{i}.value"].split(LENGTHS)
        rebuilt = [
            (p @ v.transpose(0, 1)).transpose(0, 1) for p, v in zip(trace[f"layers.{i}.probs"], values)
        ]
        close(torch.cat(rebuilt), trace[f"layers.{i}.context"], "rebuilt context")
        assert torch.equal(trace[f"layers.{i}.ffn_out"], block.ffn.down(trace[f"layers.{i}.ffn_act"]))
    assert hooks(encoder) == 0
