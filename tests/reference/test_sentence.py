"""Embeddings against sentence-transformers, both ways: every pooling, dense layers, normalising, pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import minibert
from minibert import pooling

from ..helpers import fill, write_model

pytestmark = pytest.mark.reference
st = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

# float32: a mean of hidden states that agree within 2e-5, of length 1 or a few
CLOSE = 1e-5
TEXTS = ["the cat sat on a mat.", "un", "the dog ran fast, is it not?", "a cat", "it is not a dog!"]
WAYS = {
    **{name: (name,) for name in pooling.POOLING},
    "cls and mean": ("cls", "mean"),
    "weighted, last and max": ("weightedmean", "lasttoken", "max"),
}


def modules(folder, pooling, dense=None, normalise=False):
    """A SentenceTransformer put together from its parts, on a checkpoint of ours."""
    from sentence_transformers import models

    body = models.Transformer(str(folder), max_seq_length=40)
    width = 24 * len(pooling)
    parts = [body, models.Pooling(24, pooling_mode=pooling if len(pooling) > 1 else pooling[0])]
    if dense is not None:
        parts.append(
            models.Dense(width, 11, bias=dense != "no bias", activation_function=dense_activation(dense))
        )
    if normalise:
        parts.append(models.Normalize())
    return st.SentenceTransformer(modules=parts, device="cpu")


def dense_activation(word):
    return torch.nn.Identity() if word == "Identity" else torch.nn.Tanh()


def gap(a, b):
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_every_pooling_both_ways(tmp_path, family, way, normalise):
    theirs = modules(write_model(tmp_path / "in", family), WAYS[way], normalise=normalise)
    theirs.save(str(tmp_path / "theirs"))
    right = theirs.encode(TEXTS)
    model = minibert.load(tmp_path / "theirs", device="cpu")
    assert gap(model.embed(TEXTS), right) <= CLOSE
    model.save(tmp_path / "ours")
    again = st.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    assert gap(again.encode(TEXTS), right) <= 1e-6


@pytest.mark.parametrize("dense", ["Tanh", "Identity", "no bias"])
def test_a_dense_layer_behind_the_pooling(tmp_path, dense):
    theirs = modules(write_model(tmp_path / "in"), ("mean",), dense, normalise=True)
    theirs.save(str(tmp_path / "theirs"))
    right = theirs.encode(TEXTS)
    model = minibert.load(tmp_path / "theirs", device="cpu")
    assert right.shape == (5, 11) and gap(model.embed(TEXTS), right) <= CLOSE
    model.save(tmp_path / "ours")
    assert gap(st.SentenceTransformer(str(tmp_path / "ours"), device="cpu").encode(TEXTS), right) <= 1e-6


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_a_model_that_came_without_its_files_gets_them(tmp_path, pooling, normalise):
    model = minibert.load(write_model(tmp_path / "in"), device="cpu")
    model.embedder = model.embedding(pooling, normalise)
    model.save(tmp_path / "ours")
    again = st.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    assert gap(again.encode(TEXTS), model.embed(TEXTS)) <= CLOSE


@pytest.mark.parametrize("name", ["minilm", pytest.param("mpnet", marks=pytest.mark.slow)])
def test_embeddings_of_real_texts(request, name, real_texts):
    """Texts of one word to several hundred, some cut off; each with its own pooling, length and norm."""
    folder = request.getfixturevalue(name)
    texts = [*real_texts[:40], "Worried.", " ".join(real_texts[40:60])]
    model = minibert.load(folder, device="cpu")
    theirs = st.SentenceTransformer(str(folder), device="cpu")
    lengths = model.tokenize(texts).lengths.tolist()
    assert max(lengths) == theirs.max_seq_length and min(lengths) < 8, "cut off, and short"
    right = theirs.encode(texts, batch_size=16)
    found = gap(model.embed(texts), right)
    print(
        f"{name}: largest difference of an embedding {found:.1e}; of two texts {np.abs(right[0] - right[1]).max():.1e}"
    )
    assert found <= CLOSE


def test_a_half_precision_file_is_theirs(minilm, real_texts, tmp_path):
    model = minibert.load(minilm, device="cpu")
    model.save(tmp_path / "ours", dtype=torch.float16)
    halved = st.SentenceTransformer(str(tmp_path / "ours"), device="cpu").float()
    assert gap(halved.encode(real_texts[:8]), model.embed(real_texts[:8])) <= 2e-3


def test_a_regression_on_pairs_is_a_cross_encoder(tmp_path):
    pairs = list(zip(TEXTS, TEXTS[::-1]))
    model = minibert.load(write_model(tmp_path / "in"), "regression", device="cpu")
    fill(model.head, 4)
    model.head.standardise(torch.tensor([1.0, 3.0, 2.0]))
    model.save(tmp_path / "ours")
    theirs = st.CrossEncoder(str(tmp_path / "ours"), device="cpu", activation_fn=torch.nn.Identity())
    ours = model.predict([a for a, _ in pairs], [b for _, b in pairs])["value"].to_numpy()
    assert np.abs(theirs.predict(pairs) - ours).max() <= 1e-4


@pytest.mark.parametrize("most", [9, 20])
def test_the_longest_text_of_folders_as_they_write_them_today(tmp_path, most):
    theirs = modules(write_model(tmp_path / "in"), ("mean",))
    theirs.max_seq_length = most
    theirs.save(str(tmp_path / "theirs"))
    long = ["the cat sat on a mat. " * 4]
    model = minibert.load(tmp_path / "theirs", device="cpu")
    assert model.reading["max_tokens"] == most
    assert gap(model.embed(long), theirs.encode(long)) <= CLOSE


def test_a_default_prompt_stands_in_front_of_every_text(tmp_path):
    theirs = modules(write_model(tmp_path / "in"), ("mean",))
    theirs.prompts, theirs.default_prompt_name = {"query": "the dog: "}, "query"
    theirs.save(str(tmp_path / "theirs"))
    model = minibert.load(tmp_path / "theirs", device="cpu")
    assert gap(model.embed(TEXTS), theirs.encode(TEXTS)) <= CLOSE
    assert gap(model.embed(TEXTS), theirs.encode(TEXTS, prompt="")) > 0.01


@pytest.mark.parametrize("dense", ["Tanh", "Identity"])
def test_another_way_to_embed_is_saved(tmp_path, dense):
    """Set by hand on a model that came with another: the files are written anew, dense layer and all."""
    first = modules(write_model(tmp_path / "in"), ("mean",), normalise=True)
    first.save(str(tmp_path / "theirs"))
    model = minibert.load(tmp_path / "theirs", device="cpu")
    layer = torch.nn.Linear(48, 9)
    model.embedder = pooling.Embedding(("max", "cls"), True, layer, torch.tanh if dense == "Tanh" else None)
    model.save(tmp_path / "ours")
    again = st.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    assert gap(again.encode(TEXTS), model.embed(TEXTS)) <= CLOSE
    assert gap(minibert.load(tmp_path / "ours", device="cpu").embed(TEXTS), model.embed(TEXTS)) <= CLOSE


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_dense_layer_in_other_numbers(tmp_path, dtype):
    theirs = modules(write_model(tmp_path / "in"), ("mean",), "Tanh", normalise=True)
    theirs.save(str(tmp_path / "theirs"))
    found = minibert.load(tmp_path / "theirs", device="cpu", dtype=dtype).embed(TEXTS)
    assert gap(found, theirs.encode(TEXTS)) <= (CLOSE if dtype == "float64" else 0.05)
