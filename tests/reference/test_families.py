"""Every family and head against the reference: hidden states, logits, loss, gradients, and files both ways.

Tiny random models (tiny.py), ragged batches, every kernel. Needs transformers (marker `reference`).
"""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import minibert
from minibert import kernels, verify
from minibert.batch import pack, unpack
from minibert.checkpoint import rows_for
from minibert.errors import WeightsError

from ..questions import (
    GRADIENT,
    HIDDEN,
    LOSS,
    NEGLIGIBLE,
    gradients,
    once,
    our_loss,
    pair,
    question,
    stages,
    without_dropout,
)
from . import tiny

pytestmark = pytest.mark.reference
transformers = pytest.importorskip("transformers", reason="the reference is not installed")

QUIET = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}

FAMILIES = list(tiny.FAMILIES)
NEEDS = {"mpnet": "bias", "modernbert": "window"}  # what a kernel must have for a family
# Those that `auto` may take on a CPU; the others are held against the oracle (tests/test_kernel_grid.py).
KERNELS = {
    f: [k for k in kernels.DROPPING if f not in NEEDS or getattr(kernels.KERNELS[k], NEEDS[f])]
    for f in FAMILIES
}
each_pair = pytest.mark.parametrize(("family", "head"), tiny.PAIRS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(family, head) -> a folder written by the reference, made once."""
    made = {}

    def folder(family, head):
        if (family, head) not in made:
            made[family, head] = tmp_path_factory.mktemp(f"{family}-{head or 'none'}")
            tiny.save(family, head, made[family, head])
        return made[family, head]

    return folder


@pytest.fixture(autouse=True)
def own_precision():
    with tiny.own_precision():
        yield


def ours(folder, dtype=torch.float32, **options):
    model = minibert.load(folder, device="cpu", dtype=str(dtype).removeprefix("torch."), **options)
    assert not model.report.new and not model.report.warnings
    return model


@pytest.mark.parametrize("dtype", HIDDEN, ids=str)
@pytest.mark.parametrize(("family", "kernel"), [(f, k) for f in FAMILIES for k in KERNELS[f]])
def test_hidden_states(folders, can, family, kernel, dtype):
    """After the embeddings and after every block, padding nowhere."""
    can(kernel)
    folder = folders(family, "")
    model = ours(folder, dtype, kernel=kernel)
    theirs = tiny.make(family, "").to(dtype)
    ids, segments = tiny.batch(theirs.config)
    with torch.no_grad():
        out = tiny.answers(theirs, "", ids, segments, output_hidden_states=True)
        trace = model.trace(pack(ids, segments))
    mine, worst = stages(trace, model.config.num_layers), 0.0
    for stage, right in zip(mine, out.hidden_states, strict=True):
        for a, b, text in zip(unpack(stage, trace.layout), right, ids):
            worst = max(worst, float((a - b[: len(text)]).abs().max()))
    print(f"{family}: {len(mine)} stages, {dtype}, kernel {kernel}: {worst:.1e}")
    assert worst <= HIDDEN[dtype]


@pytest.mark.parametrize("dtype", HIDDEN, ids=str)
@each_pair
def test_logits(folders, family, head, dtype):
    model, theirs = ours(folders(family, head), dtype), tiny.make(family, head).to(dtype)
    assert (model.head.kind if model.head else "") == head
    ids, segments = tiny.batch(theirs.config)
    with torch.no_grad():
        out = tiny.answers(theirs, head, ids, segments)
        found = model(pack(ids, segments))
    if not head:
        hidden = torch.cat([h[: len(t)] for h, t in zip(out.last_hidden_state, ids)])
        assert (found - hidden).abs().max() <= HIDDEN[dtype]
        return
    for a, b in zip(pair(found), pair(tiny.logits_of(out, head, ids)), strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= HIDDEN[dtype]


@pytest.mark.parametrize(
    ("family", "head", "kernel"), [(f, h, k) for f, h in tiny.PAIRS if h for k in KERNELS[f]]
)
def test_loss_and_gradients_in_train_mode(folders, can, family, head, kernel):
    """Dropout off, training on: the same loss, and every parameter's gradient."""
    can(kernel)
    model = ours(folders(family, head), kernel=kernel).train()
    theirs = tiny.make(family, head).train()
    without_dropout(model, theirs)
    # Of spans the reference lets padding take part in the softmax: texts of one length have none.
    ids, segments = tiny.batch(theirs.config, (11,) * 6 if head == "span" else tiny.LENGTHS)
    targets, labels = question(family, head, ids)
    out = tiny.answers(theirs, head, ids, segments, **labels)
    out.loss.backward()
    loss = our_loss(model, pack(ids, segments), targets)
    loss.backward()
    assert abs(loss.item() - out.loss.item()) <= LOSS * abs(out.loss.item())
    right = once(family, {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None})
    mine = gradients(model)
    assert set(right) == set(mine)
    top, shares = max(float(g.abs().max()) for g in right.values()), []
    for name in right:
        size, gap = float(right[name].abs().max()), float((mine[name] - right[name]).abs().max())
        allowed = NEGLIGIBLE * top if size < NEGLIGIBLE * top else GRADIENT * size
        assert gap <= allowed, f"{name}: {gap:.2e} over {allowed:.2e}"
        shares.append(gap / allowed)
    print(f"{family} {head} {kernel}: {len(right)} gradients, at most {max(shares):.2f} of what is allowed")


def theirs_again(family, head, folder):
    """A folder loaded by the reference, and what it complained of."""
    kind = getattr(transformers, tiny.FAMILIES[family][0] + tiny.HEADS[head])
    model, told = kind.from_pretrained(str(folder), output_loading_info=True, attn_implementation="eager")
    return model.eval(), {name: sorted(found) for name, found in told.items()}


@each_pair
def test_what_they_saved_comes_back_bit_for_bit(folders, tmp_path, family, head):
    folder = folders(family, head)
    model = ours(folder)
    model.save(tmp_path / "out")
    a, b = (load_file(x / "model.safetensors") for x in (folder, tmp_path / "out"))
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype and torch.equal(tensor, b[name]), name
    before, after = (json.loads((x / "config.json").read_text()) for x in (folder, tmp_path / "out"))
    assert {k: v for k, v in after.items() if k in before} == before
    _, told = theirs_again(family, head, tmp_path / "out")
    assert told == QUIET


@pytest.mark.parametrize(("family", "head"), [p for p in tiny.PAIRS if p[1]])
def test_what_we_made_is_theirs(folders, tmp_path, family, head):
    """A new head on a bare encoder, saved by us: no key missing or unexpected, equal logits and labels."""
    labels = [f"c{i}" for i in range(tiny.CLASSES.get(head, 0))] if head != "regression" else []
    model = minibert.load(folders(family, ""), head, labels=labels, device="cpu")
    assert model.report.new
    with torch.no_grad():
        for p in model.head.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    model.save(tmp_path / "out")
    theirs, told = theirs_again(family, head, tmp_path / "out")
    assert told == QUIET
    ids, segments = tiny.batch(theirs.config)
    with torch.no_grad():
        right = tiny.logits_of(tiny.answers(theirs, head, ids, segments), head, ids)
        for a, b in zip(pair(model(pack(ids, segments))), pair(right), strict=True):
            assert (a - b).abs().max() <= HIDDEN[torch.float32]
    if labels:
        assert theirs.config.id2label == dict(enumerate(labels))
    if head in tiny.PROBLEMS:
        assert theirs.config.problem_type == tiny.PROBLEMS[head]
    again = ours(tmp_path / "out")
    assert again.head.kind == head and again.labels == tuple(labels)


@pytest.mark.parametrize("family", FAMILIES)
def test_shards_and_half_precision_both_ways(folders, tmp_path, family):
    """Several files with an index, in bfloat16 and float16; ours are theirs, theirs are ours."""
    theirs = tiny.make(family, "mlm")
    for dtype in (torch.bfloat16, torch.float16):
        folder = tmp_path / f"theirs-{dtype}"
        theirs.to(dtype).save_pretrained(folder, max_shard_size="8KB")
        assert len(list(folder.glob("model-*.safetensors"))) > 2
        model = ours(folder)
        assert model.encoder.embeddings.word.weight.dtype == torch.float32  # never half by silence
        out = tmp_path / f"ours-{dtype}"
        model.save(out, dtype=dtype, shard_bytes=8000)
        assert len(list(out.glob("model-*.safetensors"))) > 2
        again, told = theirs_again(family, "mlm", out)
        assert told == QUIET
        for (name, a), (_, b) in zip(theirs.state_dict().items(), again.state_dict().items(), strict=True):
            assert torch.equal(a, b.to(dtype)), name


@each_pair
def test_the_ladder_of_verify(folders, family, head):
    """Every rung: embeddings, blocks, logits, and the gradients of each part."""
    ladder = verify.verify(str(folders(family, head)))
    stages = [r.stage for r in ladder.rungs]
    layers = tiny.make(family, head).config.num_hidden_layers
    assert ladder.holds, str(ladder)
    assert [f"layers.{i}" for i in range(layers)] == [s for s in stages if s.startswith("layers.")]
    assert ("logits" in stages) == bool(head) and ("order" in stages) == (head == "pretraining")
    slopes = {s.removeprefix("gradients of ") for s in stages if s.startswith("gradients of ")}
    groups = {"embeddings", *(f"layers.{i}" for i in range(layers))} - (
        {"layers.2"} if family == "albert" else set()  # three layers, two blocks
    )
    assert groups | ({"head"} if head else set()) <= slopes


FAULTS = ("dropped", "added", "transposed", "renamed", "another dtype")


def spoil(tensors, fault, name):
    """One tensor of a file made wrong; returns the name that the error must hold."""
    tensor = tensors[name]
    if fault == "dropped":
        del tensors[name]
    elif fault == "added":
        name = name.replace("weight", "wait").replace("bias", "bies")
        tensors[name] = tensor.clone()
    elif fault == "transposed":
        tensors[name] = tensor.T.contiguous() if tensor.dim() > 1 else tensor[:-1].clone()
    elif fault == "renamed":
        tensors[name + "s"] = tensors.pop(name)
    else:
        tensors[name] = tensor.to(torch.int32)
    return name


@pytest.mark.parametrize("fault", FAULTS)
@each_pair
def test_a_spoilt_file_fails_with_the_tensors_name(folders, tmp_path, family, head, fault):
    """A tensor of the encoder, of its last block, and of the head, each in turn."""
    folder = folders(family, head)
    whole = load_file(folder / "model.safetensors")
    model = ours(folder)
    encoder, top = (
        [r.theirs.replace("@", model.report.prefix) for r in rows]
        for rows in rows_for(model.config, head or None)
    )
    named = [n for n in (encoder[0], encoder[-1], *top[-2:]) if n in whole]
    assert len(named) >= (4 if head and head not in ("mlm", "pretraining") else 2)
    for name in named:
        if fault == "transposed" and whole[name].dim() == 2 and len(set(whole[name].shape)) == 1:
            continue  # a square matrix transposed is another matrix, which no file can tell
        tensors = dict(whole)
        shown = spoil(tensors, fault, name)
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
        with pytest.raises(WeightsError) as caught:
            minibert.load(tmp_path, device="cpu")
        assert shown.removeprefix(model.report.prefix) in str(caught.value)


@pytest.mark.parametrize(("family", "head"), [p for p in tiny.PAIRS if p[1] in ("mlm", "pretraining")])
def test_untied_both_ways(tmp_path, family, head):
    """tie_word_embeddings false: the decoder and its own bias are what counts, theirs to ours and back."""
    made = tiny.make(family, head)
    made.config.tie_word_embeddings = False
    apart = type(made)(made.config)
    with torch.no_grad():
        for parameter in apart.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    apart.eval().save_pretrained(tmp_path / "theirs")
    model = minibert.load(tmp_path / "theirs", device="cpu")
    assert model.head.kind == head and not model.report.new
    ids, segments = tiny.batch(apart.config)
    with torch.no_grad():
        right = tiny.logits_of(tiny.answers(apart, head, ids, segments), head, ids)
        found = model(pack(ids, segments))
    for a, b in zip(pair(found), pair(right), strict=True):
        assert (a - b).abs().max() <= HIDDEN[torch.float32]
    ladder = verify.verify(str(tmp_path / "theirs"))
    assert ladder.holds and any(r.stage == "gradients of head" for r in ladder.rungs), str(ladder)
    model.save(tmp_path / "ours")
    a, b = (load_file(tmp_path / x / "model.safetensors") for x in ("theirs", "ours"))
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
    bare = tiny.make(family, "")
    bare.config.tie_word_embeddings = False
    bare.save_pretrained(tmp_path / "bare")
    fresh = minibert.load(tmp_path / "bare", head, device="cpu")
    fresh.save(tmp_path / "new")
    again, told = theirs_again(family, head, tmp_path / "new")
    assert told == QUIET
    with torch.no_grad():
        right = tiny.logits_of(tiny.answers(again, head, ids, segments), head, ids)
        for a, b in zip(pair(fresh(pack(ids, segments))), pair(right), strict=True):
            assert (a - b).abs().max() <= HIDDEN[torch.float32]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_modernberts_pooling_is_theirs_too(folders, tmp_path, pooling):
    model = minibert.load(
        folders("modernbert", ""), "classification", labels=["a", "b"], pooling=pooling, device="cpu"
    )
    model.save(tmp_path / "out")
    theirs, told = theirs_again("modernbert", "classification", tmp_path / "out")
    assert told == QUIET and theirs.config.classifier_pooling == pooling
    ids, segments = tiny.batch(theirs.config)
    with torch.no_grad():
        gap = model(pack(ids, segments)) - tiny.answers(theirs, "classification", ids, segments).logits
    assert gap.abs().max() <= HIDDEN[torch.float32]
