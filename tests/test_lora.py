"""LoRA: nothing at the start, only it learns, and merged it is a plain model with the same answers."""

from __future__ import annotations

import pytest
import torch

import minibert
from minibert import lora
from minibert.errors import ConfigError

from .helpers import EVERY, close, toy_batch, toy_encoder, write_model


@pytest.mark.parametrize("family", EVERY)
def test_at_the_start_it_changes_nothing(family):
    encoder, batch = toy_encoder(family), toy_batch()
    learning = encoder(batch).detach()
    with (
        torch.no_grad()
    ):  # a bias by distance that learns takes another of torch's paths than one that doesn't
        before = encoder(batch)
        lora.add(encoder, rank=3)
        assert torch.equal(encoder(batch), before)
    close(encoder(batch), learning, "hidden float32")
    learns = {n for n, p in encoder.named_parameters() if p.requires_grad}
    assert learns == {
        f"layers.{i}.attn.{t}.{p}"
        for i in range(len(encoder.layers))
        for t in ("query", "value")
        for p in ("down", "up")
    }


@pytest.mark.parametrize("targets", [("query", "value"), lora.TARGETS])
def test_merged_it_is_the_same_function_and_plain(targets):
    encoder, batch = toy_encoder(dtype=torch.float64), toy_batch()
    names = list(encoder.state_dict())
    lora.add(encoder, rank=3, alpha=6.0, targets=targets)
    with torch.no_grad():
        for part in lora.corrections(encoder):
            part.up.normal_()
    corrected = encoder(batch).detach()
    untouched = toy_encoder(dtype=torch.float64)(batch)
    assert (corrected - untouched).abs().max() > 0.01
    lora.merge(encoder)
    close(encoder(batch), corrected, "hidden float64")
    assert list(encoder.state_dict()) == names and not lora.corrections(encoder)
    assert all(p.requires_grad for p in encoder.parameters())


def test_it_learns_and_is_saved_as_a_plain_model(tmp_path):
    model = minibert.load(write_model(tmp_path / "in"), "classification", labels=["a", "b"], device="cpu")
    frozen = {n: p.clone() for n, p in model.encoder.named_parameters()}
    lora.add(model.encoder, rank=4, seed=3)
    batch, targets = model.encode(["the cat sat", "a dog ran fast"]), torch.tensor([0, 1])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(30):
        total, count = model.head.loss(model(batch), targets)
        (total / count).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float((total / count).detach()))
    assert losses[-1] < 0.1 * losses[0]
    answers = model(batch).detach()
    model.save(tmp_path / "carrying")  # with its corrections added in, and the model left as it is
    close(minibert.load(tmp_path / "carrying", device="cpu")(batch), answers, "logits float32")
    assert len(lora.corrections(model.encoder)) == 6
    lora.merge(model.encoder)
    moved = {n for n, p in model.encoder.named_parameters() if not torch.equal(p, frozen[n])}
    assert moved == {f"layers.{i}.attn.{t}.weight" for i in range(3) for t in ("query", "value")}
    model.save(tmp_path / "out")
    again = minibert.load(tmp_path / "out", device="cpu")
    close(again(batch), answers, "logits float32")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"targets": ("qurey",)}, 'did you mean "query"'),
        ({"targets": ()}, "none of query"),
        ({"rank": 0}, "rank 1 or more"),
        ({"alpha": 0.0}, "alpha above 0"),
    ],
)
def test_wishes_that_can_not_be_met(options, said):
    with pytest.raises(ConfigError, match=said):
        lora.add(toy_encoder(), **options)


def test_twice_is_refused():
    encoder = toy_encoder()
    lora.add(encoder)
    with pytest.raises(ConfigError, match="already"):
        lora.add(encoder)


def test_the_seed_decides():
    drawn = []
    for seed in (0, 0, 1):
        encoder = toy_encoder()
        lora.add(encoder, seed=seed)
        drawn.append(lora.corrections(encoder)[0].down)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
