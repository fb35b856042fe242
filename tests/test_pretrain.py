"""Going on with pre-training: it learns, the frozen stays, what is saved fills, and bad input says so."""

from __future__ import annotations

import json
import math

import pytest
import torch

import minibert
from minibert import ask, masking, pretrain
from minibert.errors import ConfigError, DataError
from minibert.pretrain import Settings

from .helpers import write_model

LINES = ["the cat sat on a mat.", "the dog ran fast.", "it is not a dog!", "a mat is on the dog?"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(
        "\n\n".join("\n".join(LINES[i % 4 :] + LINES[: i % 4]) for i in range(24)), encoding="utf-8"
    )
    return path


@pytest.fixture(params=["bert", pytest.param("roberta", marks=pytest.mark.slow)])
def source(request, tmp_path):
    return write_model(tmp_path / "in", request.param, mlm=False)


FAST = Settings(epochs=12, learning_rate=1e-2, batch_size=4, max_tokens=24, validation=0.2)


def test_it_learns_and_what_is_saved_fills(tmp_path, source, text):
    table = pretrain.pretrain(str(source), text, tmp_path / "out", FAST, place="cpu")
    assert table["after"]["perplexity"] < 0.3 * table["before"]["perplexity"]
    assert table["after"]["words"] == table["before"]["words"] > 10
    assert table["status"] == "completed" and table["head"] == "trained from new"
    model = ask.filler(str(tmp_path / "out"), device="cpu")
    assert model.head.kind == "mlm" and not model.report.new
    assert model.head.out.weight is model.encoder.embeddings.word.weight, "tied"
    words = ask.fill(model, "the cat sat on a [MASK].", top=3)
    assert [w.mask for w in words] == [0, 0, 0] and words[0].probability >= words[1].probability
    again = pretrain.pretrain(str(tmp_path / "out"), text, tmp_path / "more", FAST, place="cpu")
    assert again["head"] == "continued"
    assert again["before"]["loss"] == pytest.approx(table["after"]["loss"], rel=1e-5)


def test_frozen_is_the_encoder_and_not_the_head(tmp_path, source, text):
    settings = Settings(epochs=2, learning_rate=1e-2, batch_size=8, max_tokens=24, freeze=True)
    pretrain.pretrain(str(source), text, tmp_path / "out", settings, place="cpu")
    before, after = (minibert.load(x, device="cpu") for x in (source, tmp_path / "out"))
    for (name, a), (_, b) in zip(
        before.encoder.state_dict().items(), after.encoder.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
    start = minibert.load(source, "mlm", device="cpu").head
    assert not torch.equal(start.read.dense.weight, after.head.read.dense.weight)


def test_next_sentence_pairs(tmp_path, text):
    source = write_model(tmp_path / "in", "bert")
    settings = Settings(
        next_sentence=True, whole_words=True, epochs=2, batch_size=8, max_tokens=30, validation=0.2
    )
    table = pretrain.pretrain(str(source), text, tmp_path / "out", settings, place="cpu")
    assert 0 <= table["after"]["order_accuracy"] <= 1
    model = minibert.load(tmp_path / "out", device="cpu")
    assert model.head.kind == "pretraining" and not model.report.new
    assert ask.fill(minibert.load(tmp_path / "out", "mlm", device="cpu"), "the [MASK]")[0].probability > 0
    with pytest.raises(ConfigError, match="roberta has no head 'pretraining'"):
        pretrain.pretrain(
            str(write_model(tmp_path / "r", "roberta")), text, tmp_path / "no", settings, place="cpu"
        )
    assert not (tmp_path / "no").exists()


def test_micro_batches_change_nothing(tmp_path, text):
    """The same steps, split or not: equal losses, with pairs as without."""
    source = write_model(
        tmp_path / "in", "bert", config_keys={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    )
    for pairs in (False, True):
        losses = []
        for size in (10_000, 60):
            settings = Settings(
                next_sentence=pairs, epochs=1, batch_size=6, max_tokens=30, tokens_per_microbatch=size
            )
            pretrain.pretrain(str(source), text, tmp_path / "out", settings, place="cpu", overwrite=True)
            lines = (tmp_path / "out" / "history.jsonl").read_text().splitlines()
            losses.append([x["loss"] for x in map(json.loads, lines) if x["event"] == "step"])
        assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len(losses[0]) > 3


def test_perplexity_by_hand(tmp_path, text):
    """exp of the mean loss of each hidden word, one example at a time."""
    model = minibert.load(write_model(tmp_path / "in"), "mlm", device="cpu")
    settings = Settings(max_tokens=24)
    _, held, _ = pretrain.examples(model, text, settings)
    how = masking.hiding(model.tokenizer, 0.15, False)
    losses = []
    with torch.no_grad():
        for row in range(len(held)):
            ids, places, targets = masking.hide(
                held.ids[row], held.words[row], how, (0, pretrain.HELD_OUT, row)
            )
            logits = model(minibert.pack([ids]))[places]
            losses += torch.nn.functional.cross_entropy(
                logits, torch.tensor(targets), reduction="none"
            ).tolist()
    found = pretrain.evaluate(model, held, how, settings)
    assert found["perplexity"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert found["words"] == len(losses)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "0 documents"),
        (b"one document only\n\n", "1 documents"),
        (b"\xff\xfe", "no UTF-8: byte 0"),
        (None, "can't be read"),
    ],
)
def test_texts_that_can_not_be_learnt_from(tmp_path, raw, message):
    path = tmp_path / "t.txt"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(DataError, match=message):
        pretrain.pretrain(
            str(write_model(tmp_path / "in")), path, tmp_path / "out", Settings(max_tokens=24), place="cpu"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 0.0},
        {"share": 1.5},
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": float("nan")},
        {"validation": 1.0},
        {"seed": -1},
        {"warmup": 1.0},
        {"tokens_per_microbatch": 0},
    ],
)
def test_settings_are_checked_first(tmp_path, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        pretrain.pretrain("no-such-model", tmp_path / "t.txt", tmp_path / "out", Settings(**wrong))


def test_more_tokens_than_positions(tmp_path, text):
    with pytest.raises(ConfigError, match="holds 53 positions"):
        pretrain.pretrain(
            str(write_model(tmp_path / "in")), text, tmp_path / "out", Settings(max_tokens=54), place="cpu"
        )


@pytest.mark.parametrize(("most", "pairs"), [(1, False), (2, False), (3, False), (4, True)])
def test_no_room_for_a_word(tmp_path, text, most, pairs):
    with pytest.raises(ConfigError, match="leaves no room beside"):
        settings = Settings(max_tokens=most, next_sentence=pairs)
        pretrain.pretrain(str(write_model(tmp_path / "in")), text, tmp_path / "out", settings, place="cpu")


def test_heads_that_no_longer_fit_are_left_out(tmp_path, text):
    """A pooler and a next-sentence head stay where the encoder stays, and go where it learns."""
    source = minibert.load(write_model(tmp_path / "in"), "pretraining", device="cpu").save(tmp_path / "both")
    for freeze in (False, True):
        settings = Settings(max_tokens=24, freeze=freeze)
        pretrain.pretrain(str(source), text, tmp_path / "out", settings, place="cpu", overwrite=True)
        carried = minibert.load(tmp_path / "out", device="cpu").report.carried
        assert ("cls.seq_relationship.weight" in carried) == freeze


def test_a_folder_in_use_is_left_alone(tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        pretrain.pretrain("no-such-model", text, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"thesis\.docx"):
        pretrain.pretrain("no-such-model", text, tmp_path / "out", overwrite=True)
