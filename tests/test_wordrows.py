"""Rows of words that never occur: exact without weight decay, decayed with it, and nobody else notices."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from minibert import optim, wordrows
from minibert.wordrows import WordRows

IDS, V, E = (3, 1, 8, 11), 13, 6


class Toy(nn.Module):
    def __init__(self, narrow):
        super().__init__()
        torch.manual_seed(0)
        self.embeddings = nn.Module()
        self.embeddings.word = nn.Embedding(V, E)
        self.out = nn.Linear(E, 2)
        if narrow:
            wordrows.set_apart(self.embeddings, IDS)

    def forward(self, ids):
        return self.out(self.embeddings.word(ids))


def learn(model, decay, steps=4):
    optimizer = optim.AdamW(model, decay)
    ids = torch.tensor([3, 8, 8, 1])
    for step in range(steps):
        total = model(ids[: 2 + step % 3]).square().sum()
        total.backward()
        found = optimizer.update(1e-2, total.detach(), torch.tensor(4.0), 0.5)
    return found


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_learns_what_a_whole_table_learns(decay):
    whole, narrow = Toy(False), Toy(True)
    first = whole.embeddings.word.weight.detach().clone()
    assert torch.allclose(learn(whole, decay), learn(narrow, decay), rtol=1e-6)
    found, wanted = narrow.state_dict(), whole.state_dict()
    assert found.keys() == wanted.keys()
    unused = [i for i in range(V) if i not in IDS]
    for name in wanted:
        assert torch.allclose(found[name], wanted[name], rtol=1e-6, atol=1e-7), name
    if not decay:
        assert torch.equal(found["embeddings.word.weight"][unused], first[unused])
    else:
        assert not torch.equal(found["embeddings.word.weight"][unused], first[unused])


def test_the_optimizer_holds_only_rows_that_occur():
    model = Toy(True)
    learn(model, 0.1)
    kept = optim.moments(model, optimizer := optim.AdamW(model, 0.1))
    assert kept == {} and sum(p.numel() for g in optimizer.param_groups for p in g["params"]) == 4 * E + 14


def test_evaluation_sees_every_word_and_what_was_learned():
    model = Toy(True)
    learn(model, 0.1)
    weight = model.state_dict()["embeddings.word.weight"]
    assert torch.equal(model.eval().embeddings.word(torch.arange(V)), weight)
    assert torch.equal(model.embeddings.word.weight, weight)
    assert torch.equal(model.train().embeddings.word(torch.tensor(IDS)), weight[list(IDS)])


def test_weights_load_into_it_and_go_on():
    model, other = Toy(True), Toy(True)
    learn(model, 0.1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.embeddings.word.table, model.embeddings.word.table)
    assert other.embeddings.word.used.data_ptr() == other.embeddings.word.table.data_ptr(), "one memory"
    plain = Toy(False)
    plain.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="embeddings.word.weight"):
        other.load_state_dict({k: v for k, v in model.state_dict().items() if "word" not in k})


def test_a_copy_learns_by_itself():
    model = Toy(True)
    learn(model, 0.1)
    other = copy.deepcopy(model)
    kept = other.state_dict()["embeddings.word.weight"].clone()
    assert torch.equal(kept, model.state_dict()["embeddings.word.weight"])
    learn(model, 0.1)
    assert torch.equal(other.state_dict()["embeddings.word.weight"], kept)
    learn(other, 0.1)
    assert not torch.equal(other.embeddings.word.weight, kept), "its parameter is its table's"


def test_a_frozen_table_and_a_full_one_stay_as_they_are():
    frozen, full = Toy(False), Toy(False)
    frozen.embeddings.word.requires_grad_(False)
    wordrows.set_apart(frozen.embeddings, IDS)
    wordrows.set_apart(full.embeddings, range(V))
    assert not any(isinstance(m.embeddings.word, WordRows) for m in (frozen, full))


def test_a_broken_step_decays_nothing():
    model = Toy(True)
    before = model.embeddings.word.table.clone()
    total = model(torch.tensor([3])).sum() * float("inf")
    total.backward()
    optim.AdamW(model, 0.1).update(1e-2, total.detach(), torch.tensor(1.0), 1.0)
    assert torch.equal(model.embeddings.word.table, before)


def test_moments_go_on_whether_rows_learn_apart_or_not():
    """A checkpoint of either kind goes on in the other: rows that never occur have moments of zero."""
    whole, narrow = Toy(False), Toy(True)
    kept = []
    for model in (whole, narrow):
        optimizer = optim.AdamW(model, 0.1)
        model(torch.tensor([3, 8, 1])).square().sum().backward()
        optimizer.update(1e-2, torch.tensor(1.0), torch.tensor(4.0), 0.5)
        kept.append({k: t.clone() for k, t in optim.moments(model, optimizer).items()})
    assert torch.equal(kept[1]["rows.embeddings.word.used"], torch.tensor(sorted(IDS)))
    for model, own, other in ((whole, *kept), (narrow, *reversed(kept))):
        for tensors in (own, other):
            found = optim.renamed(model, tensors)
            wanted = {k: t for k, t in own.items() if not k.startswith("rows.")}
            assert found.keys() == wanted.keys()
            assert all(torch.allclose(found[k], wanted[k], rtol=1e-6, atol=1e-9) for k in wanted)
