"""The ladder: it holds for right weights, and a wrong one is named at its rung."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from minibert import catalogue, oracle, verify
from minibert.errors import ConfigError, EnvironmentProblem
from minibert.loading import load

from .helpers import write_model
from .test_run import weights  # noqa: F401  fixture

NAME = "all-MiniLM-L6-v2"
STORED = Path(__file__).parent.parent / "weights" / "reference" / f"{NAME}.safetensors"


def stages_of(ladder):
    """The rungs that are no gradients."""
    return [r.stage for r in ladder.rungs if r.tolerance == verify.TOLERANCE]


def test_stored_references_are_small_and_hold_every_stage():
    assert STORED.stat().st_size < 250_000
    ids, segments, found = verify.read_reference(STORED)
    assert list(found.stages) == ["embeddings", *(f"layers.{i}" for i in range(6)), "pooled"]
    assert len(found.gradients) == 101  # every parameter but the pooler's two
    assert [len(i) for i in ids] == [len(s) for s in segments] and len(ids) == len(verify.TEXTS)


@pytest.mark.parametrize("rung", ["embeddings", "layers.0", "layers.3", "layers.5"])
def test_a_fault_shows_at_its_rung_and_not_below(rung, monkeypatch):
    """The stored reference against weights of which one block is off by little."""
    monkeypatch.setattr(oracle, "installed", lambda: False)
    real = load(NAME, device="cpu")
    part = (
        real.encoder.embeddings.norm if rung == "embeddings" else real.encoder.layers[int(rung[-1])].ffn_norm
    )
    with torch.no_grad():
        part.bias[15] += 1e-3  # of every third feature, which the file holds
    monkeypatch.setattr(verify, "load", lambda *_, **__: real)
    ladder = verify.verify(NAME)
    stages = [r.stage for r in ladder.rungs]
    below = stages.index(rung)
    assert not ladder.holds
    assert all(r.holds for r in ladder.rungs[:below]) and not ladder.rungs[below].holds
    assert "OFF" in str(ladder)


def test_the_real_weights_hold_with_every_kernel(monkeypatch):
    monkeypatch.setattr(oracle, "installed", lambda: False)
    for kernel in ("reference", "sdpa", "padded"):
        assert verify.verify(NAME, kernel).holds


def test_nothing_to_compare_with_is_said(monkeypatch, weights):  # noqa: F811
    monkeypatch.setattr(oracle, "installed", lambda: False)
    with pytest.raises(EnvironmentProblem, match="pip install transformers"):
        verify.verify(str(weights))


def test_a_nan_does_not_hold():
    assert not verify.Rung("x", float("nan"), 1.0).holds
    assert not verify.Ladder("x", "y", ()).holds


@pytest.mark.reference
def test_the_stored_reference_is_what_the_reference_gives():
    spec = importlib.util.spec_from_file_location(
        "make", Path(__file__).parent / "reference" / "make_reference.py"
    )
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    again = make.derive(NAME)
    _, _, stored = verify.read_reference(STORED)
    for stage, tensor in stored.stages.items():
        assert float((again[stage] - tensor).abs().max()) <= verify.TOLERANCE, stage
    top = max(float(x.max()) for x in stored.gradients.values())
    for name, tensor in stored.gradients.items():
        gap = float((again[verify.GRADIENT_OF + name] - tensor).abs().max())
        assert gap <= max(verify.GRADIENT * float(tensor.max()), verify.NEGLIGIBLE * top), name


@pytest.mark.reference
def test_a_fine_tuned_model_is_verified_with_its_head(weights, tmp_path):  # noqa: F811
    for kind, labels in (("classification", ("a", "b", "c")), ("regression", ())):
        load(weights, head=kind, labels=labels).save(tmp_path / kind)
        ladder = verify.verify(str(tmp_path / kind))
        assert ladder.holds and stages_of(ladder)[-2:] == ["pooled", "logits"]
    robertas = write_model(tmp_path / "roberta", "roberta", head=3)
    ladder = verify.verify(str(robertas))
    assert ladder.holds and stages_of(ladder)[-2:] == ["pooled", "logits"]


def test_the_catalogue_finds_the_reference():
    assert (catalogue.package_folder("weights") / "reference" / STORED.name).is_file()


def test_a_pooling_that_the_reference_lacks_is_told(weights, tmp_path):  # noqa: F811
    load(weights, "classification", labels=["a", "b"], pooling="mean").save(tmp_path / "out")
    with pytest.raises(ConfigError, match="nothing to compare"):
        verify.verify(str(tmp_path / "out"))


@pytest.mark.parametrize("fault", ["lacking", "off"])
def test_a_wrong_gradient_shows_at_its_part(monkeypatch, fault):
    """One parameter of block 3 whose gradient the reference has otherwise, or not at all."""
    monkeypatch.setattr(oracle, "installed", lambda: False)
    read, name = verify.read_reference, "encoder.layer.3.intermediate.dense.weight"

    def spoilt(path):
        ids, segments, found = read(path)
        gradients = dict(found.gradients)
        right = gradients.pop(name)
        if fault == "off":
            gradients[name] = right + 2 * verify.GRADIENT * right[0]
        return ids, segments, verify.Reference(found.stages, gradients)

    monkeypatch.setattr(verify, "read_reference", spoilt)
    ladder = verify.verify(NAME)
    assert [r.stage for r in ladder.rungs if not r.holds] == ["gradients of layers.3"]
