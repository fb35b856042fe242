"""Model: load with its own head, a new one or none; predict, embed and save; what is refused."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import minibert
from minibert import heads, saving, spec
from minibert.batch import unpack
from minibert.errors import (
    ConfigError,
    DataError,
    EnvironmentProblem,
    OutOfMemory,
    TokenizerError,
    WeightsError,
)
from minibert.model import Model

from .helpers import (
    FAMILIES,
    TOLERANCES,
    close,
    fill,
    published,
    toy_batch,
    write_checkpoint,
    write_model,
    write_wordpiece,
)

TEXTS = ["the cat sat on a mat.", "un", "the dog ran fast, is it not? " * 3, "", "a cat"]
PAIRS = ["it", "the cat sat", "no", "a dog", ""]


def load(folder, head="own", **options):
    return minibert.load(folder, head, device="cpu", **options)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def folder(tmp_path, family):
    return write_model(tmp_path / "in", family, head=3)


# --- loading --------------------------------------------------------------------------------------


def test_its_own_head(folder, family):
    model = load(folder)
    tensors = published(family, head=3, **({"vocab_size": 279} if family == "roberta" else {}))
    last = "classifier.weight" if family == "bert" else "classifier.out_proj.weight"
    assert torch.equal(model.head.out.weight, tensors[last]) and model.labels == (
        "LABEL_0",
        "LABEL_1",
        "LABEL_2",
    )
    assert not model.training and model.head.kind == "classification"
    assert all(p.requires_grad for p in model.parameters())


def test_no_head_gives_hidden_states(folder):
    model = load(folder, None)
    assert model.head is None and model.labels == () and model(toy_batch()).shape == (18, 24)
    with pytest.raises(ConfigError, match="has no head"):
        model.predict(["a"])


def test_a_new_head_follows_its_seed_alone(folder):
    def made(seed):
        torch.rand(seed + 3)
        return load(folder, "classification", labels=["x", "y"], seed=seed).head.out.weight

    assert torch.equal(made(1), made(1)) and not torch.equal(made(1), made(2))
    model = load(folder, "classification", labels=["x", "y"])
    assert model.labels == ("x", "y") and set(model.report.new) and "new (expected)" in str(model.report)
    assert abs(float(model.head.out.weight.detach().std()) - 0.02) < 0.01 and not model.head.out.bias.any()


def test_a_new_regression_head(folder):
    model = load(folder, "regression")
    assert model.head.kind == "regression" and model(toy_batch()).shape == (3,)
    assert list(model.predict(TEXTS).columns) == ["value", "tokens", "truncated"]


def test_ways_to_name_a_source(tmp_path, minilm, monkeypatch):
    write_model(tmp_path / "here", head=3)
    monkeypatch.chdir(tmp_path)
    assert load("here").head is not None and load(tmp_path / "here").report.source == str(tmp_path / "here")
    assert load("all-MiniLM-L6-v2").config.num_layers == 6
    with pytest.raises(WeightsError, match="no folder"):
        load("nowhere")


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_dtype_is_that_of_every_parameter(folder, dtype):
    model = load(folder, dtype=dtype)
    assert {str(p.dtype) for p in model.parameters()} == {f"torch.{dtype}"}
    assert np.isfinite(model.predict(TEXTS).filter(like="probability").to_numpy()).all()


@pytest.mark.parametrize("kernel", ["reference", "sdpa", "padded", "tiled"])
def test_every_kernel_gives_the_same_predictions(folder, kernel):
    ours, auto = load(folder, kernel=kernel).predict(TEXTS), load(folder).predict(TEXTS)
    columns = [c for c in ours.columns if c.startswith("probability")]
    assert np.abs(ours[columns] - auto[columns]).to_numpy().max() < TOLERANCES["logits float32"].value


def test_dropout_can_be_set(folder):
    model = load(folder, dropout=0.3, attention_dropout=0.2)
    assert (
        model.encoder.layers[0].attn_dropout.p
        == model.encoder.layers[0].ffn_dropout.p
        == model.encoder.embeddings.dropout.p
        == model.head.read.dropout.p
        == 0.3
    )
    assert model.encoder.layers[0].attn.probs_dropout == 0.2
    assert load(folder, dropout=0.0).encoder.layers[0].attn.probs_dropout == 0.1


REFUSED = [
    ({"head": "classifcation"}, 'did you mean "classification"'),
    ({"head": "classification"}, "needs labels"),
    ({"head": "classification", "labels": ["one"]}, "needs labels"),
    ({"head": "classification", "labels": ["a", "b", "a"]}, "differ"),
    ({"head": "classification", "labels": ["a", "b"], "pooling": "men"}, "'men' is none of cls, mean"),
    ({"kernel": "spda"}, 'did you mean "sdpa"'),
    ({"dtype": "float33"}, 'did you mean "float32"'),
    ({"engine": "turbo"}, "none of auto, torch"),
    ({"dropout": 1.0}, "dropout must be"),
    ({"attention_dropout": -0.1}, "dropout must be"),
    ({"dropout": "much"}, "dropout must be"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=str)
def test_options_that_make_no_sense(folder, options, message):
    with pytest.raises(ConfigError) as caught:
        load(folder, **options)
    assert message in str(caught.value)


def test_a_device_that_is_not_here(folder):
    with pytest.raises(EnvironmentProblem, match="this machine shows"):
        minibert.load(folder, device="cuda:99")
    with pytest.raises(ConfigError, match="none of auto, cpu"):
        minibert.load(folder, device="gpu")


HEADS_THAT_LIE = [
    ({"id2label": {"0": "a", "1": "b"}}, "names 2 classes (id2label), the head has 3 outputs"),
    ({"id2label": {"0": "a", "1": "b", "7": "c"}}, "must number the classes"),
    ({"problem_type": "ranking"}, "'ranking' is none of single_label_classification"),
    ({"problem_type": "regression"}, "a regression head with 3 outputs"),
    ({"minibert": {"max_tokens": "many"}}, "was damaged"),
    ({"minibert": {"rows": [1]}}, "was damaged"),
    ({"minibert": {"truncation": "middle"}}, "was damaged"),
    ({"minibert": {"pooling": "most"}}, "'most' is none of cls, mean"),
    ({"minibert": [1]}, "was damaged"),
]


@pytest.mark.parametrize(("keys", "message"), HEADS_THAT_LIE, ids=str)
def test_a_config_that_does_not_fit_its_head(tmp_path, keys, message):
    folder = write_model(tmp_path / "in", head=3, config_keys=keys)
    with pytest.raises(ConfigError) as caught:
        load(folder)
    assert message in str(caught.value)


def test_one_output_is_a_regression(tmp_path):
    """As the published layout means it; a classifier with one output is a mistake."""
    assert load(write_model(tmp_path / "a", head=1)).head.kind == "regression"
    folder = write_model(tmp_path / "b", head=1, config_keys={"problem_type": "single_label_classification"})
    with pytest.raises(ConfigError, match="problem_type.*regression"):
        load(folder)


def test_classes_without_names_are_numbered(tmp_path):
    assert load(write_model(tmp_path, head=3, config_keys={"id2label": None})).labels == (
        "LABEL_0",
        "LABEL_1",
        "LABEL_2",
    )


@pytest.mark.parametrize(
    "architectures", [["BertForMaskedLM"], ["Unknown"], [], None, "BertModel", [["x"]], [3]]
)
def test_a_head_we_do_not_know_is_carried(tmp_path, architectures):
    model = load(write_model(tmp_path, head=3, config_keys={"architectures": architectures}))
    assert model.head is None and "classifier.weight" in model.report.carried


# --- predicting -----------------------------------------------------------------------------------


def logits_alone(model, text, pair=None):
    with torch.no_grad():
        return model(model.encode([text], None if pair is None else [pair]))[0]


@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["single", "pair"])
def test_predictions_are_those_of_each_text_alone(folder, pairs):
    model = load(folder)
    table = model.predict(TEXTS, pairs)
    names = [f"probability_{c}" for c in model.labels]
    assert list(table.columns) == ["label", *names, "tokens", "truncated"] and len(table) == 5
    for i, (text, row) in enumerate(zip(TEXTS, table[names].to_numpy())):
        expected = logits_alone(model, text, None if pairs is None else pairs[i]).softmax(-1)
        close(torch.tensor(row), expected.double(), "logits float32")
        assert table["label"][i] == model.labels[int(row.argmax())]
    encoded = model.tokenize(TEXTS, pairs)
    assert table["tokens"].tolist() == encoded.tokens.tolist()
    assert table["truncated"].tolist() == (encoded.cut > 0).tolist()


def test_regression_predicts_in_original_units(folder, tmp_path):
    """Before saving by mean and deviation, after it by the last layer: the same numbers."""
    model = load(folder, "regression")
    fill(model.head, 5)
    model.head.standardise(torch.tensor([1900.0, 1950.0, 2020.0]))
    before = model.predict(TEXTS)["value"]
    again = load(model.save(tmp_path / "out"))
    assert (again.head.mean, again.head.deviation) == (0.0, 1.0)
    assert np.abs(again.predict(TEXTS)["value"] - before).max() < 1e-3 and before.mean() > 1500


def test_no_texts_no_rows(folder):
    table = load(folder).predict([])
    assert len(table) == 0 and list(table.columns)[0] == "label"
    assert load(folder, "regression").predict([]).empty
    assert load(folder).embed([], pooling="cls").shape == (0, 24)


def test_predicting_twice_in_any_mode_gives_the_same(folder):
    model = load(folder)
    first = model.predict(TEXTS)
    model.train()
    assert model.predict(TEXTS).equals(first) and model.training, "and the mode is as it was"
    assert model.embed(TEXTS, pooling="mean").tolist() == model.eval().embed(TEXTS, pooling="mean").tolist()
    assert not model.training


def test_where_memory_runs_out_the_texts_are_answered_in_halves(folder, monkeypatch):
    model, sizes = load(folder), []
    encoded = model.tokenize(TEXTS)
    whole, logits = model.answer(encoded, list(range(5))), model.logits

    def short(encoded, places, **more):
        sizes.append(len(places))
        if len(places) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return logits(encoded, places, **more)

    monkeypatch.setattr(model, "logits", short)
    close(model.answer(encoded, list(range(5))), whole, "logits float32")
    assert sizes == [5, 2, 3, 1, 2]
    monkeypatch.setattr(model, "logits", lambda *_, **__: short(encoded, range(3)))
    with pytest.raises(OutOfMemory):  # a single text is not halved
        model.answer(encoded, [0])


def test_predictions_do_not_depend_on_the_budget(folder):
    model = load(folder)
    encoded = model.tokenize(TEXTS)
    tables = []
    for budget in (1, 30, 10_000):
        out = torch.zeros(5, 3, dtype=torch.float64)
        for places, found in model.answers(encoded, tokens_at_once=budget):
            assert not torch.is_inference_mode_enabled(), "between the answers the caller's mode holds"
            out[places] = found
        tables.append(out)
    close(tables[0], tables[1], "logits float32")
    close(tables[0], tables[2], "logits float32")


def test_windows_are_the_mean_of_their_pieces(folder):
    model = load(folder)
    model.reading |= {"max_tokens": 8, "truncation": "window", "stride": 2, "max_windows": 3}
    encoded = model.tokenize(TEXTS)
    assert np.diff(encoded.pieces).max() == 3 and encoded.cut.max() > 0
    table = model.predict(TEXTS)
    for i in range(5):
        pieces = range(encoded.pieces[i], encoded.pieces[i + 1])
        with torch.no_grad():
            alone = [model(minibert.pack([encoded.ids[p]]))[0] for p in pieces]
        expected = torch.stack(alone).mean(0).softmax(-1).double()
        close(torch.tensor(table.iloc[i, 1:4].to_numpy(dtype=float)), expected, "logits float32")
    assert table["truncated"].tolist() == (encoded.cut > 0).tolist()
    places = [4, 2, 0]
    with torch.no_grad():
        some, whole = model.logits(encoded, places), model.logits(encoded, range(5))
    close(some, whole[places], "logits float32")


def test_long_texts_are_cut_as_the_model_says(folder, family):
    model = load(folder)
    longest = 53 if family == "bert" else 51
    assert model.reading == {"max_tokens": longest, "truncation": "head"}
    table = model.predict(["the cat " * 100])
    assert table["truncated"].tolist() == [True] and table["tokens"][0] > 200
    model.reading["truncation"] = "error"
    with pytest.raises(DataError, match="row 0 has"):
        model.predict(["the cat " * 100])


VERBS = {"predict": {}, "embed": {"pooling": "mean"}, "encode": {}}


@pytest.mark.parametrize("verb", VERBS)
def test_a_lone_string_is_no_list(folder, verb):
    with pytest.raises(ConfigError, match="not one string"):
        getattr(load(folder), verb)("the cat", **VERBS[verb])


def test_without_tokenizer_files_it_takes_ids(tmp_path):
    model = load(write_checkpoint(tmp_path / "in", head=3))
    assert model.tokenizer is None and model(toy_batch()).shape == (3, 3)
    for verb, options in VERBS.items():
        with pytest.raises(TokenizerError, match="takes only ids"):
            getattr(model, verb)(["a"], **options)
    again = load(model.save(tmp_path / "out"))
    assert torch.equal(again(toy_batch()), model(toy_batch()))


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path):
    folder = write_wordpiece(write_checkpoint(tmp_path, vocab_size=80))
    with pytest.raises(TokenizerError, match="80 word rows"):
        load(folder)


def test_a_pad_of_another_model_would_move_positions(tmp_path):
    folder = write_model(tmp_path / "in", "roberta", config_keys={"pad_token_id": 2})
    with pytest.raises(TokenizerError, match="pad_token_id = 2 in config.json, the tokenizer's <pad> is 1"):
        load(folder)
    assert load(write_model(tmp_path / "bert", config_keys={"pad_token_id": 2})).tokenizer is not None


# --- trace ----------------------------------------------------------------------------------------


def test_the_trace_goes_on_to_the_logits(folder):
    model = load(folder)
    batch = model.encode(TEXTS)
    with torch.no_grad():
        trace, logits = model.trace(batch), model(batch)
    assert list(trace)[-2:] == ["pooled", "logits"] and torch.equal(trace["logits"], logits)
    assert torch.equal(model.head.out(trace["pooled"]), logits) and trace["pooled"].shape == (5, 24)
    assert not model.head.out._forward_hooks
    assert "logits" not in load(folder, None).trace(batch)


# --- embedding ------------------------------------------------------------------------------------


def test_embeddings_are_the_mean_of_hidden_states(minilm, real_texts):
    """As modules.json says: mean, of length 1, 256 tokens at most."""
    model, texts = load(minilm, None), [*real_texts[:8], "a " * 400]
    found = model.embed(texts)
    assert found.shape == (9, 384) and found.dtype == np.float32
    for text, vector in zip(texts, found):
        batch = model.encode([text])
        assert len(batch.token_ids) <= 256
        with torch.no_grad():
            mean = torch.stack(list(model(batch))).mean(0)
        close(torch.tensor(vector), mean / mean.norm(), "embedding")


def test_without_modules_json_pooling_is_asked_for(folder):
    model = load(folder)
    with pytest.raises(ConfigError, match=r'modules.json.*\n.*pooling="mean"'):
        model.embed(TEXTS)
    with pytest.raises(ConfigError, match="pooling"):
        model.embed(TEXTS, normalise=True)
    with pytest.raises(ConfigError, match='did you mean "mean"'):
        model.embed(TEXTS, pooling="meen")
    batch = model.encode(TEXTS)
    with torch.no_grad():
        hidden = unpack(model.encoder(batch), batch.layout)
    for pooling, of_text in (("cls", lambda h: h[0]), ("mean", lambda h: h.mean(0))):
        for normalise in (None, True):
            found = model.embed(TEXTS, pooling=pooling, normalise=normalise)
            for vector, states in zip(found, hidden):
                expected = of_text(states) / (of_text(states).norm() if normalise else 1)
                close(torch.tensor(vector), expected, "embedding")


def test_what_the_call_says_stands_over_the_files(minilm):
    model, texts = load(minilm, None), ["a cat", "a dog"]
    plain = model.embed(texts, normalise=False)
    assert np.abs(plain / np.linalg.norm(plain, axis=1, keepdims=True) - model.embed(texts)).max() < 1e-6
    assert np.abs(model.embed(texts, pooling="cls") - model.embed(texts)).max() > 1e-2
    assert np.abs(np.linalg.norm(model.embed(texts, pooling="cls"), axis=1) - 1).max() < 1e-6


def test_windows_are_not_for_embedding(folder):
    model = load(folder)
    model.reading |= {"max_tokens": 8, "truncation": "window", "stride": 0}
    with pytest.raises(ConfigError, match="for predictions"):
        model.embed(TEXTS, pooling="mean")


# --- saving ---------------------------------------------------------------------------------------


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_saved_model_predicts_the_same(folder, tmp_path):
    for pooling in ("cls", "mean"):
        model = load(folder, "classification", labels=["größe", "b c", "3"], pooling=pooling)
        fill(model.head, 3)
        model.reading |= {"max_tokens": 20, "truncation": "head+tail", "stride": 3, "max_windows": 4}
        again = load(model.save(tmp_path / pooling))
        assert again.predict(TEXTS * 2).equals(model.predict(TEXTS * 2))
        assert again.reading == model.reading and again.labels == model.labels and again.pooling == pooling
        assert not again.report.new and not again.report.ignored


def test_files_beside_the_weights_come_back_byte_for_byte(minilm, tmp_path):
    before, after = tree(minilm), tree(load(minilm).save(tmp_path / "out"))
    assert set(after) - {"config.json", "model.safetensors"} == set(before) & set(after) - {
        "config.json",
        "model.safetensors",
    }
    for name in set(after) - {"config.json", "model.safetensors"}:
        assert after[name] == before[name], name
    assert {"tokenizer.json", "vocab.txt", "modules.json", "1_Pooling/config.json"} <= set(after)
    assert json.loads(after["config.json"]) == json.loads(before["config.json"])


def test_what_config_json_says_of_a_new_head(folder, family, tmp_path):
    out = json.loads((load(folder, "regression").save(tmp_path / "out") / "config.json").read_text())
    name = {"bert": "Bert", "roberta": "Roberta"}[family] + "ForSequenceClassification"
    assert (out["architectures"], out["problem_type"]) == ([name], "regression")
    assert (out["id2label"], out["label2id"]) == ({"0": "LABEL_0"}, {"LABEL_0": 0})
    model = load(folder, "classification", labels=["x", "y"])
    out = json.loads((model.save(tmp_path / "two") / "config.json").read_text())
    assert out["problem_type"] == "single_label_classification" and out["id2label"] == {"0": "x", "1": "y"}


def test_saving_in_half_precision(folder, tmp_path):
    model = load(folder)
    saved = model.save(tmp_path / "out", dtype=torch.float16)
    assert {t.dtype for t in load_file(saved / "model.safetensors").values()} == {torch.float16}
    assert model.encoder.embeddings.word.weight.dtype == torch.float32, "the model itself is as it was"
    half, whole = (m.predict(TEXTS).filter(like="probability").to_numpy() for m in (load(saved), model))
    assert 0 < np.abs(half - whole).max() < 0.01


def test_a_folder_that_holds_something_is_refused(folder, tmp_path):
    model, out = load(folder), tmp_path / "out"
    out.mkdir()
    model.save(out)  # an empty one is fine
    before = tree(out)
    with pytest.raises(ConfigError, match="not empty"):
        model.save(out)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        model.save(tmp_path / "file", overwrite=True)
    assert tree(out) == before and sorted(os.listdir(tmp_path)) == ["file", "in", "out"]


def test_overwrite_replaces_a_model_and_nothing_else(folder, tmp_path):
    model, out = load(folder), tmp_path / "out"
    other = load(folder, "classification", labels=["x", "y"])
    model.save(out)
    other.save(out, overwrite=True)
    assert load(out).labels == ("x", "y")
    before = tree(out)
    (out / "notes").mkdir()
    (out / "notes" / "mine.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no part of a model: notes/mine.txt"):
        model.save(out, overwrite=True)
    assert tree(out) == before | {"notes/mine.txt": b"years of work"}
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_over_the_folder_it_was_loaded_from(folder):
    model = load(folder)
    before = model.predict(TEXTS)
    assert model.save(folder, overwrite=True) == folder
    assert load(folder).predict(TEXTS).equals(before)


def test_a_save_that_fails_leaves_what_was_there(folder, tmp_path, monkeypatch):
    model = load(folder)
    model.save(tmp_path / "out")
    before = tree(tmp_path / "out")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "write", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        model.save(tmp_path / "out", overwrite=True)
    monkeypatch.undo()

    rename = type(tmp_path).rename

    def fails(path, target):
        if path.name.endswith(".part"):
            raise OSError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(type(tmp_path), "rename", fails)
    with pytest.raises(EnvironmentProblem, match="Permission denied"):
        model.save(tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == before and sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_a_place_that_can_not_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentProblem, match="could not be written"):
        load(folder).save(tmp_path / "file" / "out")


def test_the_heads_of_the_registry_are_those_a_spec_may_name():
    assert set(spec.KINDS) <= set(heads.HEADS)


# --- heads of every kind --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int8, "int8", "float17", torch.complex64])
def test_a_file_is_saved_in_numbers_that_load(folder, tmp_path, dtype):
    model = load(folder)
    model.save(tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(ConfigError, match="is none of auto"):
        model.save(tmp_path / "out", overwrite=True, dtype=dtype)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("dtype", [torch.float16, "float16", "bfloat16"])
def test_both_spellings_of_a_dtype_will_do(folder, tmp_path, dtype):
    load(folder).save(tmp_path / "out", dtype=dtype)
    assert load(tmp_path / "out", dtype=dtype).encoder.embeddings.word.weight.itemsize == 2


WRONG_WISHES = [
    ("regression", {"labels": ["a", "b"]}, "has no classes"),
    ("mlm", {"labels": ["a"]}, "has no classes"),
    ("own", {"labels": ["a", "b"]}, "labels are for a new head"),
    ("tokens", {"labels": ["a", "b"], "pooling": "mean"}, "reads every token"),
    ("tokens", {}, "needs labels"),
    ("multilabel", {}, "needs labels=.*one or more"),
    ("detection", {}, "has no head 'detection'"),
]


@pytest.mark.parametrize(("head", "options", "said"), WRONG_WISHES)
def test_heads_that_can_not_be_put_on(tmp_path, head, options, said):
    with pytest.raises(ConfigError, match=said):
        load(write_model(tmp_path), head, **options)


def test_a_head_without_a_table_says_so(tmp_path):
    model = load(write_model(tmp_path), "mlm")
    for ask in (lambda: model.predict(["the cat"]), lambda: next(model.answers(model.tokenize(["the cat"])))):
        with pytest.raises(ConfigError, match="no answers that fit into a table"):
            ask()


def test_words_have_no_second_text(tmp_path):
    model = load(write_model(tmp_path), "tokens", labels=["O", "B-X"])
    with pytest.raises(ConfigError, match="single texts, not pairs"):
        model.predict(["the cat"], ["a dog"])


def test_an_untied_table_is_a_tensor_of_its_own(tmp_path):
    """tie_word_embeddings false: a new head begins with the word table, learns apart, and is saved apart."""
    folder = write_model(tmp_path / "in", config_keys={"tie_word_embeddings": False})
    model = load(folder, "mlm")
    words = model.encoder.embeddings.word.weight
    assert model.head.out.weight is not words and torch.equal(model.head.out.weight, words)
    with torch.no_grad():
        model.head.out.weight.mul_(2)
    again = load(model.save(tmp_path / "out"))
    assert torch.equal(again.head.out.weight, 2 * again.encoder.embeddings.word.weight)


def test_a_head_taken_off_leaves_a_model_that_saves(tmp_path):
    folder = write_model(tmp_path / "in", mlm=False)
    load(folder, "mlm").save(tmp_path / "a")
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
    save_file(tensors, tmp_path / "a" / "model.safetensors", metadata={"format": "pt"})
    model = load(tmp_path / "a")
    model.head = None
    assert load(model.save(tmp_path / "b"), None).head is None


def test_dropout_reaches_every_place_of_modernbert():
    from minibert.loading import with_dropout

    from .helpers import toy_config

    found = with_dropout(toy_config("modernbert"), 0.0, 0.0)
    assert (found.dropout, found.ffn_dropout, found.head_dropout, found.added_dropout) == (
        0.0,
        0.0,
        0.0,
        (0.0, 0.0),
    )


@pytest.mark.parametrize("shard_bytes", [0, -1])
def test_files_of_no_bytes_are_refused(folder, tmp_path, shard_bytes):
    with pytest.raises(ConfigError, match="shard_bytes"):
        load(folder).save(tmp_path / "out", shard_bytes=shard_bytes)


@pytest.mark.parametrize("text", [None, ["a", "b"], 3])
def test_texts_of_words_must_be_texts(tmp_path, text):
    model = load(write_model(tmp_path), "tokens", labels=["O", "B-X"])
    with pytest.raises(DataError, match="row 1"):
        model.predict(["the cat", text])


def test_classes_of_one_name_keep_their_columns(tmp_path):
    names = {"0": "x", "1": "y", "2": "x"}
    model = load(write_model(tmp_path, head=3, config_keys={"id2label": names}))
    assert model.labels == ("x (0)", "y", "x (2)")
    assert len(model.predict(["the cat"]).columns) == 6


def test_a_model_put_together_by_hand_is_saved_with_its_way_to_embed(tmp_path):
    """Without files to describe it, they are written."""
    from minibert.pooling import Embedding

    parts = load(write_model(tmp_path / "in"))
    model = Model(parts.encoder, tokenizer=parts.tokenizer, embedder=Embedding("max", True))
    model.save(tmp_path / "out")
    assert np.allclose(load(tmp_path / "out").embed(["the cat sat"]), model.embed(["the cat sat"]))
