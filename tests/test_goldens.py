"""Every family and head against the reference's stored answers: hidden states, logits, loss, gradients.

Needs no reference: tests/golden holds what it answered (see goldens.py), and reference/test_goldens.py
holds that to what it answers today.
"""

from __future__ import annotations

import pytest
import torch

import minibert
from minibert.batch import pack
from minibert.config import FAMILIES
from minibert.families import reads
from minibert.heads import HEADS

from . import goldens, questions

# float32 as in questions.py. float64: what is stored is rounded to float32, half a unit of 1.2e-7, and
# some of the reference's losses are float32 whatever the model is.
RELATIVE = 1e-6
HIDDEN = {torch.float32: questions.HIDDEN[torch.float32], torch.float64: RELATIVE}
GRADIENT = {torch.float32: questions.GRADIENT, torch.float64: RELATIVE}
# These run on machines of all kinds, whose rounding is not the same; what is lost is judged in float64.
NEGLIGIBLE = {torch.float32: 3 * questions.NEGLIGIBLE, torch.float64: 1e-9}
LOSS = {torch.float32: questions.LOSS, torch.float64: RELATIVE}

STREAM = [0.24284443384293208, 0.32101201659423323, 0.17807925000480884]
GOLDENS = {path.stem: goldens.read(path.stem) for path in sorted(goldens.FOLDER.iterdir())}
PAIRS = [(family, head) for family, heads in GOLDENS.items() for head in heads]
each_pair = pytest.mark.parametrize(("family", "head"), PAIRS)
each_headed = pytest.mark.parametrize(("family", "head"), [p for p in PAIRS if p[1]])
each_dtype = pytest.mark.parametrize("dtype", GRADIENT, ids=str)


def test_every_family_and_head_has_one():
    """A new row in the tables asks for a new golden: python -m tests.reference.make_goldens"""
    assert set(GOLDENS) == set(FAMILIES)
    for family, facts in FAMILIES.items():
        assert set(GOLDENS[family]) == {"", *(kind for kind in HEADS if reads(kind) in facts.heads)} - {"sop"}


def test_they_are_small():
    sizes = [path.stat().st_size for path in goldens.FOLDER.iterdir()]
    assert max(sizes) < 60_000 and sum(sizes) < 500_000


def test_the_stream_is_frozen():
    """If this fails, NumPy's stream is another, and every test below fails with it."""
    found = goldens.stream("encoder.weight", [3])
    assert found == pytest.approx(STREAM, rel=1e-12)


def test_what_is_tied_is_equal():
    words, decoder = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    found = goldens.weights("bert", {words: [5, 3], decoder: [5, 3], "cls.predictions.transform": [5, 3]})
    assert torch.equal(found[words], found[decoder])
    assert not torch.equal(found[words], found["cls.predictions.transform"])


def test_a_digest_sees_entries_change_places():
    gradient = torch.arange(400.0).reshape(20, 20)
    a, b = goldens.digest("x", gradient), goldens.digest("x", gradient.T)
    assert torch.equal(a[:2], b[:2]) and abs(a[2] - b[2]) > 1


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(family, head) -> a folder with the weights that belong to the names, made once."""
    made = {}

    def folder(family, head):
        if (family, head) not in made:
            path = tmp_path_factory.mktemp(f"{family}-{head}")
            made[family, head] = goldens.write(path, family, GOLDENS[family][head])
        return made[family, head]

    return folder


@pytest.fixture
def model(folders, family, head, dtype):
    found = minibert.load(folders(family, head), device="cpu", dtype=str(dtype).removeprefix("torch."))
    assert not found.report.new and not found.report.warnings
    assert all("pooler" in name for name in found.report.carried) and not (head and found.report.carried)
    assert (found.head.kind if found.head else "") == head
    return found


def asked(model, lengths):
    ids, segments = questions.texts(model.config.num_segments > 1, lengths)
    return ids, pack(ids, segments)


@each_dtype
@each_pair
def test_hidden_states_and_logits(model, family, head, dtype):
    stored = GOLDENS[family][head].tensors
    _, batch = asked(model, goldens.lengths(head))
    with torch.no_grad():
        trace = model.trace(batch)
    hidden = goldens.features(questions.stages(trace, model.config.num_layers))
    assert hidden.dtype == dtype
    assert goldens.share(hidden, stored["hidden"], HIDDEN[dtype]) <= 1
    for name in goldens.LOGITS:
        assert (name in trace) == (name in stored)
        if name in stored:
            assert goldens.share(goldens.columns(trace[name]), stored[name], HIDDEN[dtype]) <= 1


@each_dtype
@each_headed
def test_loss_and_gradients_in_train_mode(model, family, head, dtype):
    golden = GOLDENS[family][head]
    questions.without_dropout(model.train())
    ids, batch = asked(model, goldens.lengths(head, loss=True))
    loss = questions.our_loss(model, batch, questions.question(family, head, ids)[0])
    loss.backward()
    right = golden.tensors["loss"].item()
    assert abs(loss.item() - right) <= LOSS[dtype] * right
    mine = questions.gradients(model)
    assert sorted(mine) == golden.learnt(family)
    found = torch.stack([goldens.digest(name, mine[name]) for name in golden.learnt(family)])
    shares = goldens.gradient_shares(found, golden, family, GRADIENT[dtype], NEGLIGIBLE[dtype])
    assert {name: share for name, share in shares.items() if not share <= 1} == {}
