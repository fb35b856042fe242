"""What we save, the reference loads without a complaint, and computes the same logits."""

from __future__ import annotations

import pytest
import torch

import minibert
from minibert.batch import pack

from ..helpers import FAMILIES, close, fill, published, toy_ids, write_checkpoint, write_model

pytestmark = pytest.mark.reference
transformers = pytest.importorskip("transformers", reason="the reference is not installed")

QUIET = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}
TEXTS = ["the cat sat on a mat.", "un", "the dog ran fast, is it not?", "a cat"]


def theirs(folder, with_head=True):
    """(the reference's model, what it complained of)."""
    kind = transformers.AutoModelForSequenceClassification if with_head else transformers.AutoModel
    model, told = kind.from_pretrained(str(folder), output_loading_info=True, attn_implementation="eager")
    return model.eval(), {name: sorted(found) for name, found in told.items()}


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fine_tuned_model_is_theirs_too(tmp_path, family, kind):
    """A new head, as after training: no key missing or unexpected, equal logits, labels and problem type."""
    folder = write_model(tmp_path / "in", family, prefix=False)
    labels = ["red", "green", "blue"] if kind == "classification" else []
    model = minibert.load(folder, kind, labels=labels, device="cpu")
    fill(model.head, 4)
    if kind == "regression":
        model.head.standardise(torch.tensor([10.0, 30.0, 20.0]))
    reference, told = theirs(model.save(tmp_path / "out"))
    assert told == QUIET
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        logits = reference(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
        ours = model(model.encode(TEXTS))
    if kind == "regression":
        assert (
            (model.head.predict(ours) - logits[:, 0]).abs().max()
            < 1e-4
            < 1
            < (ours - logits[:, 0]).abs().max()
        )
        assert reference.config.problem_type == "regression" and reference.config.num_labels == 1
    else:
        close(ours, logits, "logits float32")
        assert reference.config.id2label == {0: "red", 1: "green", 2: "blue"}


@pytest.mark.parametrize("family", FAMILIES)
def test_their_saved_model_is_ours(tmp_path, family):
    """Made and saved by the reference, loaded by us: equal logits; saved by us: equal bytes."""
    made, _ = theirs(write_checkpoint(tmp_path / "in", family, head=7))
    made.save_pretrained(tmp_path / "theirs")
    model = minibert.load(tmp_path / "theirs", device="cpu")
    assert not model.report.new and not model.report.carried and model.head.kind == "classification"
    ids = toy_ids((9, 9, 9))
    with torch.no_grad():
        close(model(pack(ids)), made(torch.tensor(ids)).logits, "logits float32")
    model.save(tmp_path / "ours")
    ours, right = ((tmp_path / x / "model.safetensors").read_bytes() for x in ("ours", "theirs"))
    assert ours == right


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["own", "classification"])
def test_the_counter_of_older_files_troubles_nobody(tmp_path, family, head):
    """embeddings.position_ids is saved again, and the reference doesn't report it as unexpected."""
    tensors = published(family)
    tensors[f"{family}.embeddings.position_ids"] = torch.arange(53)[None]
    folder = write_checkpoint(tmp_path / "in", family, tensors=tensors)
    model = minibert.load(folder, head, labels=[] if head == "own" else ["a", "b"], device="cpu")
    _, told = theirs(model.save(tmp_path / "out"), head == "classification")
    assert told["unexpected_keys"] == []


def test_minilm_with_a_new_head(minilm, tmp_path):
    model = minibert.load(minilm, "classification", labels=["a", "b"], device="cpu")
    fill(model.head, 1)
    reference, told = theirs(model.save(tmp_path / "out"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        logits = reference(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
        close(model(model.encode(TEXTS)), logits, "logits float32")
    assert told == QUIET
