"""The NumPy twin against torch: every stage forward, every gradient, finite differences, AdamW, the loop, real weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from torch.nn import functional as F

import minibert
from minibert import heads, optim
from minibert.errors import ConfigError, DataError, TrainingError, WeightsError
from minibert.scratch import layers
from minibert.scratch.encoder import pack
from minibert.scratch.heads import HEADS as KINDS
from minibert.scratch.layers import IGNORED, Parameters
from minibert.scratch.model import Twin, load
from minibert.scratch.train import AdamW, clip, learning_rate, train
from minibert.train import Plan
from minibert.train import train as torch_train

from .helpers import (
    CLASSES,
    LENGTHS,
    fill,
    published,
    toy_batch,
    toy_encoder,
    toy_ids,
    write_checkpoint,
    write_model,
)

ROOT = Path(__file__).parent.parent
MARKS = [[int(i >= n // 2) for i in range(n)] for n in LENGTHS]  # as toy_batch(segments=True)
HEADS = ("classification", "regression", "mlm")


class Masked(torch.nn.Module):
    """BERT's masked-language-model head with its decoder tied to the word table, in torch."""

    def __init__(self, word: torch.nn.Embedding):
        super().__init__()
        vocab, width = word.weight.shape
        self.read = torch.nn.ModuleDict(
            {"dense": torch.nn.Linear(width, width), "norm": torch.nn.LayerNorm(width, eps=1e-12)}
        )
        self.out = torch.nn.ParameterDict({"bias": torch.nn.Parameter(torch.zeros(vocab))})
        self.word = [word]  # in a list: not a parameter of this module again

    def forward(self, hidden, layout):
        read = self.read["norm"](F.gelu(self.read["dense"](hidden)))
        return read @ self.word[0].weight.T + self.out["bias"]

    def loss(self, logits, targets):
        return F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED), torch.tensor(0)


def toys(kind: str, dtype: torch.dtype = torch.float64):
    """The same toy in torch and in NumPy: (encoder, head, twin, targets)."""
    encoder = toy_encoder(dtype=dtype)
    head = {
        "classification": lambda: heads.Classification(encoder.config, CLASSES),
        "regression": lambda: heads.Regression(encoder.config),
        "mlm": lambda: Masked(encoder.embeddings.word),
    }[kind]().to(dtype)
    fill(head, 1)
    state = {**encoder.state_dict(), **head.eval().state_dict()}
    params = Parameters({name: x.numpy().copy() for name, x in state.items()})
    targets = {
        "classification": np.array([3, 0, 6]),
        "regression": np.array([0.5, -2.0, 1.25]),
        "mlm": np.where(np.arange(18) % 3 == 1, np.arange(18) * 5, IGNORED),
    }[kind]
    return encoder, head, Twin(encoder.config, kind, params), targets


def furthest(a, b) -> float:
    """The largest difference; of tuples, one of a text each."""
    if isinstance(b, tuple):
        assert len(a) == len(b)
        return max(furthest(x, y) for x, y in zip(a, b))
    assert a.shape == tuple(b.shape)
    return float(np.abs(a - b.detach().numpy()).max())


# --- forward --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, limit", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("kind", HEADS)
def test_every_stage_forward(kind, dtype, limit):
    encoder, head, twin, _ = toys(kind, dtype)
    theirs, ours = encoder.trace(toy_batch(segments=True)), twin.forward(pack(toy_ids(), MARKS))
    assert list(ours)[: len(theirs)] == list(theirs)
    far = {name: furthest(ours[name], theirs[name]) for name in theirs}
    logits = head(theirs.output, theirs.layout)
    far["logits"] = furthest(ours["logits"], logits)
    if kind != "mlm":
        far["pooled"] = furthest(ours["pooled"], head.read(head.pool(theirs.output, theirs.layout)))
    worst = max(far, key=far.get)
    assert far[worst] <= limit, f"{worst}: {far[worst]:.1e}"
    assert {x.dtype for x in ours.values() if not isinstance(x, tuple)} == {np.dtype(str(dtype)[6:])}


def test_a_text_is_the_same_alone_and_in_any_pack():
    _, _, twin, _ = toys("classification")
    together = twin.forward(pack(toy_ids()))["logits"]
    alone = [twin.forward(pack([text]))["logits"][0] for text in toy_ids()]
    assert np.abs(together - alone).max() < 1e-12


def test_softmax_and_loss_hold_for_large_scores():
    large = np.array([[1e4, 0.0, -1e4]])
    assert np.array_equal(layers.softmax(large), [[1.0, 0.0, 0.0]])
    total, count, dlogits = layers.cross_entropy(large, np.array([2]))
    assert (total, count) == (2e4, 1) and np.array_equal(dlogits, [[1.0, 0.0, -1.0]])


# --- backward -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HEADS)
def test_every_gradient_against_autograd(kind):
    encoder, head, twin, targets = toys(kind)
    batch = toy_batch(segments=True)
    loss, _ = head.loss(head(encoder(batch), batch.layout), torch.tensor(targets))
    loss.backward()
    total, count, grads = twin.gradients(pack(toy_ids(), MARKS), targets)
    assert abs(total - loss.item()) < 1e-10
    assert count == (targets != IGNORED).sum()
    named = {**dict(encoder.named_parameters()), **dict(head.named_parameters())}
    assert set(grads) == set(named) == set(twin.params)
    far = {name: furthest(grads[name], p.grad) for name, p in named.items()}
    worst = max(far, key=far.get)
    assert far[worst] <= 1e-10, f"{worst}: {far[worst]:.1e}"


@pytest.mark.parametrize("kind", HEADS)
def test_every_gradient_against_finite_differences(kind):
    """(E(w + h) - E(w - h)) / 2h is dE/dw up to h² times a third derivative, and rounding over h."""
    _, _, twin, targets = toys(kind)
    packed, h, rng, loss = pack(toy_ids(), MARKS), 1e-5, np.random.default_rng(0), KINDS[kind][2]
    grads = {name: g.copy() for name, g in twin.gradients(packed, targets)[2].items()}
    for name, w in twin.params.items():
        # among the entries that matter; most rows of the word table are not in the texts
        entries = rng.choice(np.flatnonzero(grads[name]), 3) if grads[name].any() else [0]
        for i in entries:
            before, sides = w.flat[i], []
            for side in (before + h, before - h):
                w.flat[i] = side
                sides.append(loss(twin.forward(packed)["logits"], targets)[0])
            w.flat[i] = before
            slope, said = (sides[0] - sides[1]) / (2 * h), grads[name].flat[i]
            assert abs(slope - said) <= 1e-6 * max(1.0, abs(said)), (name, slope, said)


def test_the_tied_table_gets_both_gradients():
    _, _, twin, targets = toys("mlm")
    packed = pack(toy_ids(), MARKS)
    table = twin.gradients(packed, targets)[2]["embeddings.word.weight"]
    unseen = np.setdiff1d(np.arange(101), packed.word)
    assert np.abs(table[unseen]).min() > 0  # the decoder scores every word, also those in no text
    _, _, twin, targets = toys("classification")
    assert not twin.gradients(packed, targets)[2]["embeddings.word.weight"][unseen].any()


def test_a_word_that_occurs_twice_counts_twice():
    p = Parameters({"t.weight": np.zeros((4, 2))})
    p.grads = {"t.weight": 0.0}
    layers.embedding_backward(p, "t", np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([2, 0, 2]))
    assert np.array_equal(p.grads["t.weight"], [[3, 4], [0, 0], [6, 8], [0, 0]])


# --- learning -------------------------------------------------------------------------------------


def test_adamw_clipping_and_rate_are_torchs():
    encoder, _, twin, _ = toys("classification")
    twin.params = {name: twin.params[name] for name in encoder.state_dict()}
    theirs, ours = torch.optim.AdamW(optim.parameter_groups(encoder, 0.05)), AdamW(twin.params, decay=0.05)
    rng = np.random.default_rng(0)
    for step in range(8):
        rate = optim.learning_rate(step, 8, 0.3, 1e-2)
        assert learning_rate(step, 8, 1e-2, 0.3) == rate
        scale = 10.0 ** rng.integers(-4, 1)  # some steps are clipped, some not
        grads = {name: rng.normal(0, scale, w.shape) for name, w in twin.params.items()}
        for name, w in encoder.named_parameters():
            w.grad = torch.tensor(grads[name])
        length = torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        assert clip(grads, 1.0) == pytest.approx(float(length), rel=1e-12)
        for group in theirs.param_groups:
            group["lr"] = rate
        theirs.step()
        ours.step(grads, rate)
    assert max(furthest(twin.params[name], w) for name, w in encoder.named_parameters()) < 1e-12


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_loop_is_the_loop(kind):
    """Losses and weights of 3 epochs equal those of minibert/train.py, in whose toy dropout is off."""
    encoder, head, twin, _ = toys(kind)
    for part in (*encoder.modules(), *head.modules()):
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        part.probs_dropout = 0.0
    ids, rng = toy_ids((5, 11, 2, 7, 3)), np.random.default_rng(0)
    targets = rng.integers(0, CLASSES, 5) if kind == "classification" else rng.normal(size=5)

    def loss_of(places, key):
        batch = minibert.pack([ids[i] for i in places])
        return head.loss(head(encoder(batch), batch.layout), torch.tensor(targets[places]))

    both = torch.nn.ModuleList([encoder, head])
    plan = Plan(5, 3, 2, 1e-3, order_seed=4)
    theirs = [step.loss for step in torch_train(both, loss_of, [len(x) for x in ids], plan)]
    batch = lambda places: (pack([ids[i] for i in places]), targets[places])  # noqa: E731
    ours = list(train(twin, batch, 5, 3, 2, 1e-3, seed=4))
    assert ours == pytest.approx(theirs, rel=1e-9) and len(set(ours)) == 9
    named = {**dict(encoder.named_parameters()), **dict(head.named_parameters())}
    assert max(furthest(twin.params[name], w) for name, w in named.items()) < 1e-9


def test_a_loss_that_is_not_finite_stops_before_it_is_used():
    _, _, twin, targets = toys("classification")
    twin.params["out.bias"][0] = np.nan
    before = {name: w.copy() for name, w in twin.params.items()}
    with np.errstate(invalid="ignore"), pytest.raises(TrainingError, match="step 1"):
        next(train(twin, lambda _: (pack(toy_ids()), targets), 3, 1, 3, 1e-3, 0))
    assert all(np.array_equal(w, before[name], equal_nan=True) for name, w in twin.params.items())


# --- checkpoints ----------------------------------------------------------------------------------


def test_a_checkpoint_that_minibert_saved(tmp_path):
    model = minibert.load(write_model(tmp_path / "in", head=CLASSES), device="cpu")
    folder, texts = model.save(tmp_path / "out"), ["the cat sat", "a dog ran fast on the mat."]
    twin, batch = load(folder, "classification"), model.encode(texts)
    theirs = model.eval().trace(batch)
    ours = twin.forward(pack([x.tolist() for x in minibert.unpack(batch.token_ids, batch.layout)]))
    assert list(ours) == list(theirs)
    assert max(furthest(ours[name], theirs[name]) for name in theirs) < 1e-5
    assert load(folder).forward(pack([[2, 5, 3]]))  # without a head


@pytest.mark.parametrize("old", [False, True])
def test_the_published_mlm_head(tmp_path, old):
    tensors = {name: x.numpy() for name, x in published(mlm=True).items()}
    rng = np.random.default_rng(0)
    front = "cls.predictions.transform."
    for name in ("dense.bias", "LayerNorm.weight", "LayerNorm.bias"):
        tensors[front + name] = rng.normal(size=24).astype("f")
    write_checkpoint(tmp_path)
    renamed = {
        n.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): x
        for n, x in tensors.items()
    }
    save_file(renamed if old else tensors, tmp_path / "model.safetensors")
    twin = load(tmp_path, "mlm", dtype=np.float64)
    assert np.array_equal(twin.params["read.norm.weight"], tensors[front + "LayerNorm.weight"])
    assert np.array_equal(twin.params["out.bias"], tensors["cls.predictions.bias"])
    assert twin.forward(pack(toy_ids()))["logits"].shape == (18, 101)


def test_a_new_last_layer_keeps_the_published_pooler(tmp_path):
    folder = write_checkpoint(tmp_path)
    twins = [load(folder, "classification", outputs=5, seed=seed) for seed in (0, 0, 1)]
    stored = load_file(folder / "model.safetensors")
    assert all(
        np.array_equal(t.params["read.dense.weight"], stored["bert.pooler.dense.weight"]) for t in twins
    )
    first, again, other = (t.params["out.weight"] for t in twins)
    assert first.shape == (5, 24) and np.array_equal(first, again) and not np.array_equal(first, other)
    assert 0.01 < first.std() < 0.03 and not twins[0].params["out.bias"].any()
    assert load(folder, "regression", outputs=1).forward(pack(toy_ids()))["logits"].shape == (3,)


def test_faulty_files_are_told_in_one_error(tmp_path):
    folder = write_checkpoint(tmp_path)
    with pytest.raises(WeightsError, match=r"classifier.weight: missing[\s\S]*classifier.bias: missing"):
        load(folder, "classification")
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.embeddings.word_embeddings.weight"] = np.zeros((7, 24), "f")
    tensors["bert.encoder.layer.2.output.dense.bias"] = np.full(24, np.nan, "f")
    del tensors["bert.encoder.layer.1.output.dense.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError) as found:
        load(folder)
    for words in (
        r"word_embeddings.weight: (7, 24)",
        "layer.1.output.dense.bias: missing",
        "layer.2.output.dense.bias",
    ):
        assert words in str(found.value)
    assert str(found.value).count("output.dense.bias") == 2


def test_what_is_no_file_of_weights(tmp_path):
    folder = write_checkpoint(tmp_path)
    tensors = {name: x.bfloat16() for name, x in published().items()}
    save_torch(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="can't be read"):
        load(folder)
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs")
    with pytest.raises(WeightsError, match="can't be read"):
        load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="can't be read"):
        load(folder)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load(tmp_path / "nothing")


def test_what_the_twin_does_not_compute(tmp_path):
    with pytest.raises(ConfigError, match="roberta"):
        load(write_checkpoint(tmp_path / "a", "roberta"))
    with pytest.raises(ConfigError, match="relu"):
        load(write_checkpoint(tmp_path / "b", config_keys={"hidden_act": "relu"}))
    for head, outputs in (("clasification", 0), ("mlm", 5), ("", 5)):
        with pytest.raises(ConfigError, match="head"):
            load(tmp_path / "b", head, outputs)


def test_bad_input_has_a_name():
    _, _, twin, targets = toys("classification")
    for ids, marks in (([], None), ([[5], []], None), ([[5, 6]], [[0]])):
        with pytest.raises(DataError, match="segment"):
            pack(ids, marks)
    for ids, marks, word in (
        ([[101]], None, "word"),
        ([[-1]], None, "word"),
        ([[5]], [[2]], "segment"),
        ([[5] * 54], None, "position"),
    ):
        with pytest.raises(DataError, match=f"embeddings.{word}"):
            twin.forward(pack(ids, marks))
    with pytest.raises(DataError, match="classes 0 to 6"):
        twin.gradients(pack(toy_ids()), np.array([0, -1, 2]))


# --- what it is -----------------------------------------------------------------------------------

ALONE = """
import sys
sys.modules["torch"] = None  # importing it fails from now on
import numpy as np
import minibert.scratch.train
from minibert.scratch.encoder import pack
from minibert.scratch.model import load
from minibert.tokenize import Tokenizer
ids = Tokenizer.from_folder(sys.argv[1]).encode(["the cat sat", "a dog"], max_tokens=9).ids
total, count, grads = load(sys.argv[1], "classification").gradients(pack(ids), np.array([1, 0]))
assert count == 2 and total > 0 and all(np.isfinite(g).all() for g in grads.values())
del sys.modules["torch"]
import minibert.scratch.__main__  # scikit-learn itself stumbles over a torch that is None
print(len(grads), "torch" in sys.modules)
"""


def test_it_needs_no_torch(tmp_path):
    folder = write_model(tmp_path, head=2)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["57", "False"]  # 5 + 3 * 16 + 4 tensors


def test_it_can_be_read_at_a_sitting():
    files = sorted((ROOT / "minibert" / "scratch").rglob("*.py"))
    lines = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert len(lines) == 7 and sum(lines.values()) < 600, lines


# --- real weights, real texts ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dtype, limit", [("float32", 1e-5), ("float64", 1e-12)])
def test_real_weights_forward(minilm, real_texts, dtype, limit):
    """Each stage against its own largest value; hidden states also as they are."""
    model = minibert.load(
        "all-MiniLM-L6-v2", head="classification", labels=("a", "b"), device="cpu", dtype=dtype
    )
    batch, twin = (
        model.eval().encode(real_texts[:24]),
        load(minilm, "classification", 2, dtype=np.dtype(dtype)),
    )
    twin.params |= {f"out.{x}": getattr(model.head.out, x).detach().numpy() for x in ("weight", "bias")}
    theirs = model.trace(batch)
    ours = twin.forward(pack([x.tolist() for x in minibert.unpack(batch.token_ids, batch.layout)]))
    assert list(ours) == list(theirs)
    far = {name: furthest(ours[name], theirs[name]) for name in theirs}
    scale = {
        n: max(float(x.abs().max()) for x in (v if isinstance(v, tuple) else (v,))) for n, v in theirs.items()
    }
    relative = {name: far[name] / scale[name] for name in far}
    print(f"{dtype}: relative {max(relative.values()):.1e}, last hidden {far['layers.5.ffn_normed']:.1e}")
    print(f"logits {far['logits']:.1e}, absolute {max(far.values()):.1e}")
    assert max(relative.values()) <= limit
    assert max(far[f"layers.{i}.ffn_normed"] for i in range(6)) <= limit and far["logits"] <= limit


@pytest.mark.slow
def test_training_beats_counting_words(minilm):
    from minibert.scratch.__main__ import main

    assert main(0)["low"] > 0
