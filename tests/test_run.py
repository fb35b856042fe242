"""A whole run on a tiny model: the files it leaves, what it refuses, and what happens when it is stopped."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import minibert
from minibert import config, spec, wordrows
from minibert.encoder import Encoder, initialise
from minibert.errors import ConfigError, DataError, MiniBertError, TrainingError
from minibert.fit import improves
from minibert.model import Model
from minibert.predict import predict_file
from minibert.run import headline, run
from minibert.standing import Best
from minibert.tokenize import Tokenizer

from .helpers import toy_config

TOPICS = {
    "farm": "wheat corn grain harvest soil tractor barley crop field rain",
    "bank": "loan rate credit money bond deposit market dollar yield debt",
    "ship": "port vessel cargo tanker crew dock sail fleet harbour wave",
}
PLAIN = "the a of in and was said on new more"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny BERT with a word-piece tokenizer, in the published layout, with random weights."""
    folder = tmp_path_factory.mktemp("weights")
    words = [w for text in (*TOPICS.values(), PLAIN) for w in text.split()]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}', encoding="utf-8")
    sizes = {"vocab_size": len(vocab), "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 37, "max_position_embeddings": 40, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
             "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
             "pad_token_id": 0, "model_type": "bert"}  # fmt: skip
    encoder = Encoder(config.parse(sizes))
    initialise(encoder, 0.1, seed=1)
    return Model(encoder, tokenizer=Tokenizer.from_folder(folder)).save(folder / "model")


def texts(n, seed):
    """n rows (text, topic, score): words of one topic among plain words; the score counts topic words."""
    generator = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        topic = list(TOPICS)[i % 3]
        own = generator.choice(TOPICS[topic].split(), generator.integers(2, 6))
        words = [*own, *generator.choice(PLAIN.split(), 3)]
        rows.append((" ".join(generator.permutation(words)), topic, f"{len(own) * 10 + i % 3:.1f}"))
    return rows


def write(path, rows, names=("text", "topic", "score")):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def task(tmp_path, weights, kind="classification", **changes):
    write(tmp_path / "train.csv", texts(90, 1))
    write(tmp_path / "test.csv", texts(45, 2))
    tables = {
        "task": {"name": "tiny", "kind": kind},
        "data": {"train": "train.csv", "test": "test.csv", "validation": 0.2, "text": "text",
                 "label": "topic" if kind == "classification" else "score"},
        "model": {"weights": str(weights), "max_tokens": 16},
        "train": {"epochs": 20, "learning_rate": 1e-3, "batch_size": 8},
    }  # fmt: skip
    for name, values in changes.items():
        tables[name] = {**tables.get(name, {}), **values}
    return spec.parse(tables, folder=str(tmp_path))


@pytest.fixture(scope="module")
def finished(weights, tmp_path_factory):
    """A completed classification run."""
    tmp_path = tmp_path_factory.mktemp("finished")
    outcome = run(task(tmp_path, weights), tmp_path / "out")
    assert (outcome.status, outcome.exit_code) == ("completed", 0)
    return tmp_path / "out"


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.mark.gpu
@pytest.mark.parametrize("still", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "tf32", "auto", "float16"])
@pytest.mark.parametrize("kernel", ["auto", "sdpa", "padded"])
def test_a_run_on_the_card(weights, tmp_path, monkeypatch, dtype, kernel, still):
    """Trains, keeps its best epoch, tests and saves there, in every number format; no step makes the host wait."""
    from minibert import kernels, optim, train

    def strict(real):
        def call(*words, **options):
            torch.cuda.set_sync_debug_mode("error")
            try:
                return real(*words, **options)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        return call

    monkeypatch.setattr(train, "whole_step", strict(train.whole_step))
    monkeypatch.setattr(optim.AdamW, "update", strict(optim.AdamW.update))
    shares = {"dropout": 0.0, "attention_dropout": 0.0} if still else {}
    one = task(
        tmp_path, weights, model={"kernel": kernel, **shares}, train={"device": "cuda", "dtype": dtype}
    )
    outcome = run(one, tmp_path / "out")
    assert outcome.status == "completed" and outcome.metrics["test"]["accuracy"]["value"] > 0.9
    made = read(tmp_path / "out", "environment.json")
    assert made["device"].startswith("cuda")
    if kernel == "auto" and made["dtype"] == "bfloat16":
        able = kernels.KERNELS["triton"].why_not("cuda") == ""
        assert made["kernel"] == ("varlen" if still else "triton" if able else "padded")
    lines = (tmp_path / "out" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(x["peak_memory"] > 0 for x in map(json.loads, lines) if x["event"] == "step")


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["default", "reduce-overhead"])
def test_a_compiled_run_on_the_card(weights, tmp_path, way):
    """Without dropout, in float32: the losses of an uncompiled run; several micro-batches a step."""
    losses = {}
    for name in ("none", way):
        one = task(tmp_path, weights, model={"dropout": 0.0, "attention_dropout": 0.0},
                   train={"device": "cuda", "dtype": "float32", "compile": name, "tokens_per_microbatch": 40})  # fmt: skip
        run(one, tmp_path / name)
        lines = (tmp_path / name / "history.jsonl").read_text(encoding="utf-8").splitlines()
        losses[name] = [x["loss"] for x in map(json.loads, lines) if x["event"] == "step"]
    assert losses[way][:40] == pytest.approx(losses["none"][:40], rel=1e-3)


@pytest.mark.slow
def test_what_trained_and_why_is_written_down(finished):
    made = read(finished, "environment.json")
    assert (made["dtype"], made["numbers"], made["evaluation_dtype"]) == ("float32", "float32", "float32")
    why = {"native": "the first that auto asks", "tiled": "native "}[made["kernel"]]
    assert made["kernel_why"].startswith(why)
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert f"Training computed in float32; attention by the kernel {made['kernel']} ({why}" in page


def test_why_a_card_trains_by_this_kernel(monkeypatch):
    """Nothing is switched off by silence: dropout costs varlen, and the report says what would take it."""
    from minibert import kernels
    from minibert.results import kernel_why

    monkeypatch.setattr(kernels, "choose_cached", {})
    monkeypatch.setattr(kernels, "KERNELS", dict(kernels.KERNELS))
    kernels.KERNELS["varlen"] = dataclasses.replace(kernels.KERNELS["varlen"], build=lambda really: "")
    kernels.KERNELS["triton"] = dataclasses.replace(kernels.KERNELS["triton"], needs="no_such_package")
    wish = {"device": "cuda", "dtype": torch.bfloat16, "gradients": True, "dropout": True}
    assert kernel_why("auto", "padded", wish) == (
        "varlen has no dropout; triton needs the package no_such_package; texts of like length share a rectangle, at most 8 a micro-batch; "
        "[model] attention_dropout = 0 would take varlen"
    )
    assert kernel_why("auto", "varlen", {**wish, "dropout": False}) == "the first that auto asks"
    assert kernel_why("sdpa", "sdpa", wish) == "asked for; [model] attention_dropout = 0 would take varlen"


@pytest.mark.slow
def test_a_compiled_run_learns_the_same(weights, tmp_path):
    """Without dropout, every step's loss within rounding; with a filled pack, too; the report says so."""
    still = {"dropout": 0.0, "attention_dropout": 0.0}
    losses = {}
    for way in ("none", "default"):
        one = task(tmp_path, weights, model=still, train={"epochs": 3, "device": "cpu", "compile": way})
        run(one, tmp_path / way)
        assert read(tmp_path / way, "environment.json")["compile"] == way
        lines = (tmp_path / way / "history.jsonl").read_text(encoding="utf-8").splitlines()
        losses[way] = [x["loss"] for x in map(json.loads, lines) if x["event"] == "step"]
    assert losses["default"] == pytest.approx(losses["none"], rel=1e-5) and len(losses["none"]) == 27


def test_cuda_graphs_are_refused_without_a_card(weights, tmp_path):
    one = task(tmp_path, weights, train={"compile": "reduce-overhead", "device": "cpu"})
    with pytest.raises(ConfigError, match="CUDA graphs need a CUDA card"):
        run(one, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_filled_pack_is_learnt_as_any_other(weights, tmp_path):
    """What CUDA graphs need, on a processor: packs of few sizes, the same loss, the same gradients."""
    from minibert.learner import Learner

    found = []
    for sized in (0, 64):
        model = minibert.load(weights, head="classification", labels=("a", "b"), device="cpu", dropout=0.0,
                              attention_dropout=0.0)  # fmt: skip
        encoded = model.read([text for text, _, _ in texts(12, 3)])
        wordrows.set_apart(model.encoder.embeddings, {model.config.pad_id}.union(*encoded.ids))
        learner = Learner(model.train(), encoded, np.arange(12) % 2, sized=sized)
        _, batch, _ = ready = learner.prepare([3, 1, 7, 8], (0, 0))
        assert len(batch) == 4 and (len(batch.token_ids) % 8 == 0 or not sized)
        total, count = learner(*ready)
        total.backward()
        found.append([total.detach(), count, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*found, strict=True))


def test_what_a_step_took_of_a_card(monkeypatch):
    """Memory, and arithmetic by the formula over time and the published peak; no share where some weights rest."""
    from minibert import device, flops
    from minibert.history import of_card

    monkeypatch.setattr(device, "peak_memory", lambda place: 7 * 10**9)
    monkeypatch.setattr(device, "card", lambda place: "Tesla T4")
    model = SimpleNamespace(device=torch.device("cuda", 0), config=toy_config())
    rest = [9, 5, 2], SimpleNamespace(step=5, seconds=2.0)
    share, one = (
        flops.training_flops(toy_config(), [9, 5, 2]) / (2.0 * 65e12),
        SimpleNamespace(train=spec.Train()),
    )
    memory = {"peak_memory": 7 * 10**9}
    assert of_card(one, model, *rest, "float16", 1) == memory | {"model_flops_share": share}
    assert of_card(one, model, *rest, "float16", 2) == memory | {"model_flops_share": share / 2}, (
        "of two cards"
    )
    assert of_card(one, model, *rest, "bfloat16", 1) == memory, "a T4 has none"
    assert of_card(SimpleNamespace(train=spec.Train(lora_rank=4)), model, *rest, "float16", 1) == memory
    model.device = torch.device("cpu")
    assert of_card(one, model, *rest, "float32", 1) == {}


@pytest.mark.parametrize("dtype", ["tf32", "float16"])
def test_a_number_format_of_cards_is_refused_on_a_processor(weights, tmp_path, dtype):
    one = task(tmp_path, weights, train={"dtype": dtype, "device": "cpu"})
    with pytest.raises(
        ConfigError, match=f"dtype '{dtype}' can't be used for training on cpu: that is for cards"
    ):
        run(one, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_in_bfloat16_says_what_that_means_here(weights, tmp_path, capsys):
    one = task(
        tmp_path, weights, train={"dtype": "bfloat16", "force_dtype": True, "device": "cpu", "epochs": 1}
    )
    assert run(one, tmp_path / "out").status == "completed"
    made = read(tmp_path / "out", "environment.json")
    assert made["dtype"] == "bfloat16" and made["numbers"].startswith(
        "bfloat16 autocast, weights and updates in"
    )
    said = capsys.readouterr().err
    assert "bfloat16 on a processor is no gain" in said or "bfloat16 was forced" in said


def test_a_run_leaves_every_file_named(finished):
    names = {p.name for p in finished.iterdir()}
    assert names == {"metrics.json", "history.jsonl", "predictions.csv", "baseline.csv", "report.html", "spec.toml",
                     "environment.json", "data.json", "diagnosis.json", "status.json", "methods.md", "model"}  # fmt: skip
    assert read(finished, "status.json")["status"] == "completed"
    accuracy = f"{read(finished, 'metrics.json')['test']['accuracy']['value']:.3f}"
    for prose in (finished / "methods.md", finished / "model" / "README.md"):
        assert accuracy in prose.read_text(encoding="utf-8")


def test_scores_and_predictions_agree(finished):
    scores = read(finished, "metrics.json")
    table = pd.read_csv(finished / "predictions.csv", dtype=str, keep_default_na=False)
    assert list(table.columns) == ["row_id", "text", "topic", "score", "label", "probability_bank",
                                   "probability_farm", "probability_ship", "tokens", "truncated"]  # fmt: skip
    assert table["row_id"].tolist() == [str(i) for i in range(45)]
    accuracy = (table["label"] == table["topic"]).mean()
    found = scores["test"]["accuracy"]
    assert found["value"] == pytest.approx(accuracy) and found["n"] == 45
    assert found["low"] <= found["value"] <= found["high"]
    assert accuracy > 0.7, "a tiny model must learn three word lists"
    probabilities = table.filter(like="probability_").astype(float)
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1)
    assert set(scores["baseline"]["test"]) == set(scores["test"]) == set(scores["difference"])
    baseline = pd.read_csv(finished / "baseline.csv", dtype=str)
    assert scores["baseline"]["test"]["accuracy"]["value"] == pytest.approx(
        (baseline["label"] == table["topic"]).mean()
    )


def test_history_has_a_line_a_step_and_an_epoch(finished):
    lines = [
        json.loads(line) for line in (finished / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    steps = [line for line in lines if line["event"] == "step"]
    evaluations = [line for line in lines if line["event"] == "evaluation"]
    assert len(steps) == 20 * 9 and [e["epoch"] for e in evaluations] == list(range(1, 21))
    assert {
        "step",
        "epoch",
        "loss",
        "learning_rate",
        "grad_norm",
        "texts_per_second",
        "tokens_per_second",
    } <= set(steps[0])
    assert sum(e["best"] for e in evaluations) >= 1


def test_the_saved_model_gives_the_predictions_that_were_scored(finished):
    table = pd.read_csv(finished / "predictions.csv", dtype=str, keep_default_na=False)
    model = minibert.load(finished / "model")
    again = model.predict(table["text"].tolist())
    assert again["label"].tolist() == table["label"].tolist()
    assert again["probability_farm"].to_numpy() == pytest.approx(
        table["probability_farm"].astype(float), abs=1e-6
    )
    assert model.reading["max_tokens"] == 16 and model.labels == ("bank", "farm", "ship")


def test_the_same_spec_gives_the_same_bits(weights, tmp_path, finished):
    run(task(tmp_path, weights), tmp_path / "again")
    one, two = ((f / "model" / "model.safetensors").read_bytes() for f in (finished, tmp_path / "again"))
    assert one == two
    assert (finished / "predictions.csv").read_bytes() == (
        tmp_path / "again" / "predictions.csv"
    ).read_bytes()


@pytest.mark.slow
def test_regression_is_in_original_units_everywhere(weights, tmp_path):
    run(task(tmp_path, weights, "regression", train={"epochs": 40}), tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    scores = read(tmp_path / "out", "metrics.json")
    rmse = float(np.sqrt(((table["value"] - table["score"]) ** 2).mean()))
    assert scores["test"]["rmse"]["value"] == pytest.approx(rmse)
    assert 15 < table["value"].mean() < 45
    assert scores["test"]["pearson"]["value"] > 0.5
    model = minibert.load(tmp_path / "out" / "model")
    assert (model.head.mean, model.head.deviation) == (0.0, 1.0), "the saved head needs no statistics"
    again = model.predict(table["text"].tolist())["value"].to_numpy()
    assert again == pytest.approx(table["value"].to_numpy(), abs=1e-4)


def test_folds_test_every_text_once(weights, tmp_path):
    write(tmp_path / "all.csv", texts(60, 3))
    tables = task(tmp_path, weights).table()
    tables["data"] = {"source": "all.csv", "folds": 3, "validation": 0.2, "text": "text", "label": "topic"}
    tables["train"]["epochs"] = 1
    run(spec.parse(tables, folder=str(tmp_path)), tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert sorted(table["row_id"]) == list(range(60))
    assert read(tmp_path / "out", "metrics.json")["test"]["accuracy"]["n"] == 60


def test_windows_run_and_predict_alike(weights, tmp_path):
    long = [(" ".join([t] * 5), topic, s) for t, topic, s in texts(60, 4)]
    one = task(
        tmp_path, weights, model={"truncation": "window", "stride": 4, "max_windows": 6}, train={"epochs": 1}
    )
    write(tmp_path / "train.csv", long)
    write(tmp_path / "test.csv", long[:20])
    with pytest.raises(
        DataError
    ):  # the same texts in train and test file would be a leak; here only the mechanics count
        write(tmp_path / "test.csv", long)
        run(one, tmp_path / "leak")
    write(tmp_path / "test.csv", [(t + " said", topic, s) for t, topic, s in long[:20]])
    run(one, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert table["tokens"].max() > 16 and not table["truncated"].any()
    model = minibert.load(tmp_path / "out" / "model")
    again = model.predict(table["text"].tolist())
    assert again["probability_ship"].to_numpy() == pytest.approx(
        table["probability_ship"].to_numpy(), abs=1e-6
    )


def test_class_weights_early_stopping_and_seeds_are_taken(weights, tmp_path):
    changes = {"class_weights": "balanced", "patience": 1, "epochs": 60, "head_seed": 5}
    run(task(tmp_path, weights, train=changes), tmp_path / "out")
    lines = (tmp_path / "out" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [json.loads(x)["epoch"] for x in lines if '"evaluation"' in x]
    assert max(epochs) < 60
    assert read(tmp_path / "out", "environment.json")["seeds"]["head"] == 5


def test_no_baseline_is_said_not_hidden(weights, tmp_path):
    run(task(tmp_path, weights, baseline={"kind": "none"}, train={"epochs": 1}), tmp_path / "out")
    scores = read(tmp_path / "out", "metrics.json")
    assert scores["baseline"] is None and scores["difference"] == {}
    assert not (tmp_path / "out" / "baseline.csv").exists()


def test_a_second_run_and_foreign_files_are_refused(weights, tmp_path, finished):
    before = (finished / "metrics.json").read_bytes()
    with pytest.raises(ConfigError, match="already holds a run"):
        run(task(tmp_path, weights), finished)
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="not a run's"):
            run(task(tmp_path, weights), foreign, overwrite=overwrite)
    assert (finished / "metrics.json").read_bytes() == before
    assert (foreign / "thesis.txt").read_text() == "years of work" and len(list(foreign.iterdir())) == 1


def test_overwrite_replaces_a_run_and_nothing_else(weights, tmp_path):
    one = task(tmp_path, weights, train={"epochs": 1})
    run(one, tmp_path / "out")
    run(one, tmp_path / "out", overwrite=True)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        run(one, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "notes.txt").exists() and (tmp_path / "out" / "model").is_dir()
    (tmp_path / "out" / "notes.txt").rename(tmp_path / "out" / "model" / "notes.txt")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        run(one, tmp_path / "out", overwrite=True)
    shutil.rmtree(tmp_path / "out" / "model")
    (tmp_path / "out" / "model").write_text("a file")
    with pytest.raises(ConfigError, match="is a file"):
        run(one, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "metrics.json").exists()


def rows_with(change):
    """Training rows with one of them changed."""
    rows = texts(30, 1)
    rows[7] = change(rows[7])
    return rows


BAD_TABLES = {
    "a label that only the test part has": (
        {},
        {"test": [*texts(20, 2), ("wheat the", "moon", "1")]},
        "moon",
    ),
    "one class only": (
        {},
        {"train": [(t, "farm", s) for t, _, s in texts(30, 1)], "test": [("a wheat", "farm", "1")]},
        "farm",
    ),
    "an empty file": ({}, {"train": None}, "empty"),
    "a header only": ({}, {"train": []}, "no rows"),
    "a wrong column": ({"data": {"text": "Text"}}, {}, "text"),
    "an empty text": ({}, {"train": rows_with(lambda r: ("", *r[1:]))}, "row 7"),
    "NaN targets": ({"kind": "regression"}, {"train": rows_with(lambda r: (*r[:2], "nan"))}, "row 7"),
    "a word as target": ({"kind": "regression"}, {"train": rows_with(lambda r: (*r[:2], "high"))}, "high"),
    "a decimal comma": ({"kind": "regression"}, {"train": rows_with(lambda r: (*r[:2], "3,5"))}, "decimal"),
    "no file": ({"data": {"train": "absent.csv"}}, {}, "absent.csv"),
    "one class, and an ordinary test": (
        {},
        {"train": [(t, "farm", s) for t, _, s in texts(30, 1)]},
        "to train on",
    ),
    "no words": (
        {},
        {"train": [(f"! {i}", t, s) for i, (_, t, s) in enumerate(texts(9, 1))]},
        "finds no words",
    ),
    "a baseline of the other kind": ({"baseline": {"kind": "mean"}}, {}, "no baseline for classification"),
    "a weight for no class": ({"train": {"class_weights": {"moon": 2.0}}}, {}, '"moon" is no label'),
    "a weight below 0": ({"train": {"class_weights": {"farm": -2.0}}}, {}, "no finite number above 0"),
    "a text too long": ({"model": {"truncation": "error", "max_tokens": 6}}, {}, "train.csv (train): row"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_input_is_said_and_leaves_nothing(case, weights, tmp_path):
    changes, tables, word = BAD_TABLES[case]
    kind = changes.get("kind", "classification")
    one = task(tmp_path, weights, kind, **{k: v for k, v in changes.items() if k != "kind"})
    for name, rows in tables.items():
        path = tmp_path / f"{name}.csv"
        path.write_text("") if rows is None else write(path, rows)
    with pytest.raises(MiniBertError) as caught:
        run(one, tmp_path / "out")
    assert caught.value.exit_code == 2
    assert word.lower() in str(caught.value).lower()
    assert not (tmp_path / "out").exists()


def test_text_that_is_not_utf8_names_byte_line_and_key(weights, tmp_path):
    one = task(tmp_path, weights)
    raw = (tmp_path / "train.csv").read_bytes().replace(b"wheat", b"caf\xe9 wheat", 1)
    (tmp_path / "train.csv").write_bytes(raw)
    with pytest.raises(DataError) as caught:
        run(one, tmp_path / "out")
    for word in ("byte", "line", "encoding", "cp1252"):
        assert word in str(caught.value)


def test_divergence_is_a_status_and_exit_1(weights, tmp_path):
    one = task(tmp_path, weights, train={"learning_rate": 1e30, "clip": 0.0, "warmup": 0.0})
    with pytest.raises(TrainingError) as caught:
        run(one, tmp_path / "out")
    assert caught.value.exit_code == 1
    assert read(tmp_path / "out", "status.json")["status"] == "diverged"
    assert "holds epoch" not in str(caught.value) and not (tmp_path / "out" / "model").exists()
    rows = re.search(r"8 texts, rows ([\d, ]+) of .*train\.csv", str(caught.value))
    assert rows and len(rows[1].split(", ")) == 8, "the rows of the table, not places in a part"
    assert not (tmp_path / "out" / "metrics.json").exists()


def start(tmp_path, weights, *extra):
    """A long run in a process of its own; returns it once it has made some steps."""
    one = task(tmp_path, weights, train={"epochs": 5000})
    (tmp_path / "spec.toml").write_text(one.to_toml(), encoding="utf-8")
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "minibert", "run", str(tmp_path / "spec.toml"), "--out", str(out), *extra],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    while process.poll() is None and not (
        (out / "history.jsonl").exists() and (out / "history.jsonl").stat().st_size > 5000
    ):
        time.sleep(0.05)
    return process, out, watchdog


@pytest.mark.skipif(os.name == "nt", reason="Windows has no POSIX signals to send")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_saves_what_was_reached(number, weights, tmp_path):
    process, out, watchdog = start(tmp_path, weights)
    process.send_signal(number)
    _, said = process.communicate()
    watchdog.cancel()
    assert process.returncode == 75, said
    status = read(out, "status.json")
    assert status["status"] == "stopped" and signal.Signals(number).name in status["message"]
    assert "model" in said and "loads" in said and "stopping at the next step" in said
    trained = minibert.load(out / "model")
    assert trained.predict(["wheat and corn"])["label"][0] in TOPICS
    assert not same_weights(trained, minibert.load(weights)), "what was reached, not what it began with"


def same_weights(one, two):
    left, right = one.encoder.state_dict(), two.encoder.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no POSIX signals to send")
@pytest.mark.parametrize("where", ["predict_test", "fit_baseline"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_after_training_keeps_the_best_epoch(where, number, weights, tmp_path, monkeypatch):
    """In the middle of the test texts, or of the baseline: exit 75, and the model is what a whole run saves."""
    real = getattr(minibert.run, where)

    def interrupted(*words):
        os.kill(os.getpid(), number)
        return real(*words)

    monkeypatch.setattr(minibert.run, where, interrupted)
    one = task(tmp_path, weights, train={"epochs": 2})
    outcome = run(one, tmp_path / "out")
    assert (outcome.status, outcome.exit_code) == ("stopped", 75)
    assert "its best epoch so far" in read(tmp_path / "out", "status.json")["message"]
    assert not (tmp_path / "out" / "metrics.json").exists()
    monkeypatch.setattr(minibert.run, where, real)
    run(one, tmp_path / "whole")
    assert same_weights(minibert.load(tmp_path / "out"), minibert.load(tmp_path / "whole"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no POSIX signals to send")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_before_training_leaves_nothing(number, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(minibert.run, "new_model", lambda *_: os.kill(os.getpid(), number))
    outcome = run(task(tmp_path, weights), tmp_path / "out")
    assert (outcome.status, outcome.exit_code) == ("stopped", 75) and not (tmp_path / "out").exists()
    assert f"stopped on {signal.Signals(number).name} before training" in capsys.readouterr().err


def test_a_baseline_that_fails_leaves_the_model(weights, tmp_path, monkeypatch):
    def fails(*_):
        raise DataError("no baseline today")

    monkeypatch.setattr(minibert.run, "fit_baseline", fails)
    with pytest.raises(DataError):
        run(task(tmp_path, weights, train={"epochs": 1}), tmp_path / "out")
    assert read(tmp_path / "out", "status.json")["status"] == "failed"
    assert minibert.load(tmp_path / "out").labels == ("bank", "farm", "ship")


def test_names_of_our_columns_give_way_as_often_as_it_takes(weights, tmp_path):
    one = task(tmp_path, weights, train={"epochs": 1})
    for name in ("train", "test"):
        rows = [(f"id{i}", *row, "a", "b") for i, row in enumerate(texts(45, 2 + len(name)))]
        write(
            tmp_path / f"{name}.csv", rows, ("row_id", "text", "topic", "score", "label", "predicted_label")
        )
    run(one, tmp_path / "out")
    with open(tmp_path / "out" / "predictions.csv", encoding="utf-8", newline="") as file:
        header, first = list(csv.reader(file))[:2]
    assert header[:8] == ["predicted_row_id", "row_id", "text", "topic", "score", "label", "predicted_label",
                          "predicted_predicted_label"]  # fmt: skip
    assert first[0] == "0" and first[1] == "id0" and first[7] in TOPICS
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "has no column" not in page
    assert "got a wrong label" in page or "No test text was labelled" in page
    predict_file(str(tmp_path / "out"), tmp_path / "out" / "predictions.csv", tmp_path / "again.csv")
    with open(tmp_path / "again.csv", encoding="utf-8", newline="") as file:
        names = next(csv.reader(file))
    assert len(set(names)) == len(names) and names[: len(header)] == header


def test_the_line_of_an_epoch_tells_the_loss_of_all_its_steps(finished):
    lines = [json.loads(x) for x in (finished / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    for done in (x for x in lines if x["event"] == "evaluation"):
        steps = [
            (x["loss"], x["texts"]) for x in lines if x["event"] == "step" and x["epoch"] == done["epoch"]
        ]
        mean = sum(loss * n for loss, n in steps) / sum(n for _, n in steps)
        assert done["training_loss"] == pytest.approx(mean, rel=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no POSIX signals to send")
def test_a_killed_run_says_running_and_is_not_taken_for_done(weights, tmp_path):
    process, out, watchdog = start(tmp_path, weights)
    process.kill()
    process.communicate()
    watchdog.cancel()
    assert read(out, "status.json")["status"] == "running"
    assert not (out / "metrics.json").exists()


def test_a_fold_that_lacks_a_rare_class_still_counts_it(weights, tmp_path):
    rows = [*texts(30, 5), ("wheat wave bond said", "rare", "1")]
    write(tmp_path / "all.csv", rows)
    tables = task(tmp_path, weights).table()
    tables["data"] = {
        "source": "all.csv",
        "folds": 3,
        "validation": 0.2,
        "text": "text",
        "label": "topic",
        "unseen": "wrong",
    }
    tables["train"]["epochs"] = 1
    run(spec.parse(tables, folder=str(tmp_path)), tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert len(table) == 31 and "probability_rare" in table.columns
    assert table.filter(like="probability_").sum(axis=1).to_numpy() == pytest.approx(1)
    assert read(tmp_path / "out", "metrics.json")["labels"] == ["bank", "farm", "rare", "ship"]


def test_more_tokens_than_positions_is_refused(weights, tmp_path):
    with pytest.raises(ConfigError, match="holds 40 positions"):
        run(task(tmp_path, weights, model={"max_tokens": 41}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tie_goes_to_the_lower_loss():
    old = {"macro_f1": 0.5, "loss": 1.0}
    for new, better in (((0.5, 0.9), True), ((0.5, 1.1), False), ((0.6, 2.0), True), ((0.4, 0.1), False)):
        assert improves("macro_f1", dict(zip(("macro_f1", "loss"), new)), old) is better
    assert improves("rmse", {"rmse": 1.0, "loss": 0.1}, {"rmse": 1.0, "loss": 0.2})
    assert improves("loss", {"loss": 1.0}, {}) and not improves("loss", {"loss": float("nan")}, {"loss": 1.0})


def test_the_terminal_says_what_to_mind(weights, tmp_path):
    outcome = run(task(tmp_path, weights, train={"epochs": 1, "learning_rate": 1e-9}), tmp_path / "out")
    said = headline(outcome)
    assert "Mind: Only 45 texts were tested" in said and "-0.000" not in said
    assert "lower is better" in headline(
        run(task(tmp_path, weights, "regression", train={"epochs": 1}), tmp_path / "two")
    )


def test_a_run_that_diverges_later_keeps_its_best_epoch(weights, tmp_path, monkeypatch):
    real, count = minibert.train.accumulate, []

    def breaks(*words):
        count.append(1)
        total, number = real(*words)
        return total * (float("nan") if len(count) > 20 else 1), number

    taken, take = [], Best.take

    def noted(best):
        take(best)
        taken.append(copy.deepcopy(best.model))

    monkeypatch.setattr(Best, "take", noted)
    monkeypatch.setattr(minibert.train, "accumulate", breaks)
    with pytest.raises(TrainingError, match="model/ holds epoch [12], the best before it"):
        run(task(tmp_path, weights), tmp_path / "out")
    assert read(tmp_path / "out", "status.json")["status"] == "diverged"
    assert same_weights(minibert.load(tmp_path / "out"), taken[-1]), "not those of the step that broke"


@pytest.mark.parametrize("what", ["weights", "train"])
def test_a_run_does_not_write_over_what_it_reads(what, weights, tmp_path):
    run(task(tmp_path, weights, train={"epochs": 1}), tmp_path / "out")
    inside = tmp_path / "out" / ("model" if what == "weights" else "predictions.csv")
    table = "model" if what == "weights" else "data"
    again = task(tmp_path, weights, **{table: {what: str(inside)}})
    with pytest.raises(ConfigError, match="which this run would write into"):
        run(again, tmp_path / "out", overwrite=True)
    assert inside.exists()


def test_an_occupied_folder_is_refused_before_anything_is_read(finished, weights, tmp_path):
    with pytest.raises(ConfigError, match="already holds a run"):
        run(task(tmp_path, weights, data={"train": "absent.csv"}), finished)


def test_what_a_file_manager_leaves_is_no_ones_work(weights, tmp_path):
    one = task(tmp_path, weights, train={"epochs": 1})
    run(one, tmp_path / "out")
    for folder in ("out", "out/model"):
        (tmp_path / folder / ".DS_Store").write_text("litter")
    assert run(one, tmp_path / "out", overwrite=True).status == "completed"


def test_names_of_the_catalogue_are_no_folders(weights, tmp_path):
    (tmp_path / "all-MiniLM-L6-v2").mkdir()
    one = task(tmp_path, "all-MiniLM-L6-v2")
    assert one.absolute({"all-MiniLM-L6-v2"}).model.weights == "all-MiniLM-L6-v2"
    assert one.absolute().model.weights == str(tmp_path / "all-MiniLM-L6-v2")


def test_memory_that_runs_out_has_a_name(weights, tmp_path, monkeypatch):
    def hungry(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(minibert.train, "accumulate", hungry)
    with pytest.raises(
        MiniBertError, match="memory ran out: CUDA out of memory.*\n.*tokens_per_microbatch"
    ) as caught:
        run(task(tmp_path, weights), tmp_path / "out")
    assert caught.value.exit_code == 1 and read(tmp_path / "out", "status.json")["status"] == "failed"


def test_a_strange_name_is_written_so_that_it_can_be_read(weights, tmp_path):
    write(tmp_path / "all.csv", texts(60, 3))
    tables = task(tmp_path, weights).table()
    tables["data"] = {"source": "all.csv", "folds": 3, "validation": 0.2, "text": "text", "label": "topic"}
    tables["train"]["epochs"] = 1
    tables["task"]["name"] = "a\x7fb"  # which TOML wants escaped
    outcome = run(spec.parse(tables, folder=str(tmp_path)), tmp_path / "out")
    assert outcome.status == "completed"
    assert spec.load(tmp_path / "out" / "spec.toml").task.name == "a\x7fb"


SPARING = {
    "lora": {"lora_rank": 4, "learning_rate": 1e-2, "seed": 1},
    "frozen": {"freeze_layers": 1, "learning_rate": 1e-2},
    "decay": {"layer_decay": 0.7, "learning_rate": 3e-3},
    "recompute": {"recompute": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", SPARING)
def test_what_learns_can_be_chosen(weights, tmp_path, way):
    """It learns, saves a plain model that answers as the run did, and leaves alone what it should."""
    outcome = run(task(tmp_path, weights, train=SPARING[way]), tmp_path / "out")
    assert outcome.metrics["test"]["accuracy"]["value"] > 0.6, "of three topics, from random weights"
    before, after = (load_file(f / "model.safetensors") for f in (weights, tmp_path / "out" / "model"))
    before = {name.removeprefix("bert."): x for name, x in before.items()}
    after = {name.removeprefix("bert."): x for name, x in after.items()}
    moved = {name for name, x in before.items() if not torch.equal(x, after[name])}
    if way == "lora":
        assert moved == {
            f"encoder.layer.{i}.attention.self.{w}.weight" for i in (0, 1) for w in ("query", "value")
        }
    elif way == "frozen":
        assert moved and all(name.startswith("encoder.layer.1.") for name in moved)
    else:
        assert {name for name in before if name.endswith("weight")} <= moved | {
            "embeddings.token_type_embeddings.weight"
        }
    model = minibert.load(tmp_path / "out", device="cpu")
    told = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert model.predict(told["text"].tolist())["label"].tolist() == told["label"].tolist()


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"freeze_layers": 3}, "has 2 blocks"),
        ({"freeze_layers": 1, "lora_rank": 2}, "leave it out"),
        ({"recompute": "yes"}, "must be true or false"),
        ({"layer_decay": 1.5}, "layer_decay"),
    ],
)
def test_what_learns_is_checked_first(weights, tmp_path, train, said):
    with pytest.raises(ConfigError, match=said):
        run(task(tmp_path, weights, train=train), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keep", [True, False])
def test_no_file_of_a_run_holds_what_was_masked_or_kept_out(weights, tmp_path, keep):
    """Addresses nowhere, whatever column they stood in; without texts no word of one, and no other column either."""
    one = task(tmp_path, weights, train={"epochs": 1, "checkpoint_steps": 1},
               data={"mask": ["email", "name"], "keep_texts": keep})  # fmt: skip
    for name in ("train", "test"):
        path = tmp_path / f"{name}.csv"
        frame = pd.read_csv(path, dtype=str)
        frame["text"] = [f"zebra {text} from anna{i}@example.org" for i, text in enumerate(frame["text"])]
        frame["by"] = [f"@writer{i} okapi" for i in range(len(frame))]
        frame.loc[1, "text"] = frame.loc[0, "text"]  # under two labels, which the report says with the text
        frame.to_csv(path, index=False)
    assert run(one, tmp_path / "out").status == "completed"
    for path in (p for p in (tmp_path / "out").rglob("*") if p.is_file()):
        said = path.read_bytes()
        assert b"@example" not in said and b"@writer" not in said, path
        assert (b"zebra" in said) == (
            keep and path.name in ("predictions.csv", "report.html", "data.json")
        ), path
    notes = " ".join(read(tmp_path / "out", "data.json")["notes"])
    assert 'masked in "text": 90 e-mail addresses' in notes and 'masked in "by": 45 @names' in notes
    kept = pd.read_csv(tmp_path / "out" / "predictions.csv", dtype=str)
    assert len(kept) == 45 and ("okapi" in " ".join(kept.get("by", ""))) == keep
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert ("[email]" in page) and ("No text stands here" in page) == (not keep)
