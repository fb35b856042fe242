"""The waterfall: steps agree with the plain model, padding is masked, ratios and verdicts, peers as processes."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import minibert
from minibert import kernels
from minibert.bench import ceiling, encoder, peers, rectangles, steps, waterfall, work
from minibert.bench.clock import Timed
from minibert.cli import app
from minibert.errors import ConfigError, EnvironmentProblem
from minibert.flops import forward_flops

from .helpers import LENGTHS, toy_config, toy_ids, write_model

PEERS = Path(__file__).resolve().parent.parent / "benchmarks" / "peers"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A toy's folder and a table of texts for it."""
    folder = tmp_path_factory.mktemp("bench")
    write_model(folder / "weights")
    with open(folder / "texts.csv", "w", newline="", encoding="utf-8") as file:
        rows = [["the cat sat on a mat" + " a dog ran fast" * (i % 5), ""] for i in range(40)]
        csv.writer(file).writerows([("text", "empty"), *rows])
    return folder


@pytest.fixture(scope="module")
def model(toy):
    return minibert.load(toy / "weights", head=None, device="cpu")


IDS = toy_ids((*LENGTHS, 5, 1, 17, 5), vocab_size=80)


@pytest.mark.parametrize("step", steps.STEPS, ids=lambda step: step.name)
def test_every_step_reads_as_the_plain_model(step, model, native):
    plain = steps.Reader(steps.Step("plain", "", kernel="reference"), model, IDS).hidden()
    with rectangles.registered():
        reader = steps.Reader(step, model, IDS, 24)
        if why := kernels.KERNELS[reader.kernel].build(True):
            pytest.skip(f"{reader.kernel} {why}")
        assert plain.shape == (sum(map(len, IDS)), 24)
        assert np.abs(reader.hidden() - plain).max() <= encoder.LIMIT


def test_without_the_mask_padding_is_seen(model):
    plain = steps.Reader(steps.Step("plain", "", kernel="reference"), model, IDS).hidden()
    padded = [step for step in steps.STEPS if step.padded]
    for step in padded[:2]:
        reader = steps.Reader(steps.Step(step.name, "", step.groups, True, "sdpa"), model, IDS)
        row = encoder.checked(reader, plain)
        assert row["verdict"] == "FAIL" and row["error"] > 1e-3


def test_the_kernels_of_rectangles_are_gone_afterwards():
    before = dict(kernels.KERNELS)
    with rectangles.registered():
        assert {*kernels.KERNELS} - {*before} == {*rectangles.KERNELS}
    assert before == kernels.KERNELS


def test_groups_hold_every_text_once_and_keep_to_their_budget():
    lengths = [7, 3, 9, 3, 30, 1, 8, 2] * 10
    for groups in (steps.as_they_come, steps.by_length, steps.by_cells, steps.by_tokens):
        assert sorted(sum(groups(lengths, 24), [])) == list(range(80))
    cells = [(len(g), max(lengths[i] for i in g)) for g in steps.by_cells(lengths, 24)]
    assert all(n * T <= 24 or n == 1 for n, T in cells)
    assert max(map(len, steps.by_length(lengths, 0))) == steps.TEXTS


def test_from_step_to_step_something_changes():
    told = [(s.groups, s.padded, s.kernel, s.products, s.budget) for s in steps.STEPS]
    assert len(set(told)) == len(told) and len({step.name for step in steps.STEPS}) == len(told)


@pytest.mark.parametrize("family", ["bert", "electra", "modernbert"])
def test_the_ceiling_is_all_products_but_attention(family):
    config = toy_config(family)
    products = 2 * sum(k * m for k, m in ceiling.shapes(config))
    looks = 4 * config.hidden_width * config.num_layers
    assert products == forward_flops(config, [1]) - looks


def test_every_library_multiplies():
    x, weight = torch.randn(5, 24), torch.randn(37, 24)
    for name, library in ceiling.LIBRARIES.items():
        out = torch.zeros(5, 37)
        try:
            found = library(weight)(x, out)
        except (EnvironmentProblem, AttributeError, RuntimeError):
            assert name in ("device.products", "oneDNN, weights packed")
            continue
        found = found if torch.is_tensor(found) else out
        assert (found - x @ weight.T).abs().max() < 1e-4, name


# --- rows


def raced(**seconds):
    return {name.replace("_", " "): Timed(name, {i: 1e3 * s for i, s in enumerate(all)})
            for name, all in seconds.items()}  # fmt: skip


def test_ratios_are_of_rounds_and_what_is_wrong_has_none():
    rows = [
        waterfall.row("products alone", "", "ceiling"),
        waterfall.row("naive", "", "ours", verdict="PASS", error=0.0),
        waterfall.row("wrong", "", "ours", verdict="FAIL", error=1.0),
        waterfall.row("fast", "", "ours", verdict="PASS", error=0.0),
        waterfall.row("absent", "", "ours", outcome="unsupported", why="no compiler"),
        waterfall.row("peer", "", "peer"),
        waterfall.row("fallen", "", "peer"),
    ]
    drift = [1.0, 2.0, 1.5, 1.0, 3.0, 1.2]  # of the machine, alike for all
    timed = raced(
        products_alone=drift, naive=[10 * x for x in drift], wrong=drift, fast=[2 * x for x in drift],
        peer=[4 * x for x in drift], fallen=[],
    )  # fmt: skip
    timed["fallen"].problem = EnvironmentProblem("it ended")
    waterfall.fill(rows, timed, tokens=100)
    found = {row["step"]: row for row in rows}
    assert found["fast"]["speedup"] == pytest.approx({"value": 5, "low": 5, "high": 5})
    assert found["fast"]["gain"]["value"] == pytest.approx(5)  # over the last step that holds
    assert found["wrong"]["speedup"] is found["wrong"]["gain"] is None and found["wrong"]["rounds"]
    assert found["peer"]["ours_over_it"]["value"] == pytest.approx(2)
    assert found["fast"]["share_of_ceiling"] == pytest.approx(0.5)
    assert found["naive"]["tokens_per_second"]["p50"] == pytest.approx(7.5)  # of 10 / drift
    assert found["fallen"]["outcome"] == "unsupported" and found["fallen"]["why"] == "it ended"
    table = waterfall.lines({"rows": rows})
    assert table[4]["verdict"] == "unsupported" and table[4][""] == "no compiler"
    assert table[2]["times naive"] == "-" and table[3]["times naive"] == "5.00 [5.00, 5.00]"


def test_nan_fails(model, monkeypatch):
    reader = steps.Reader(steps.STEPS[4], model, IDS)
    monkeypatch.setattr(reader, "hidden", lambda: np.full((3, 3), math.nan))
    assert encoder.checked(reader, np.zeros((3, 3)))["verdict"] == "FAIL"


def test_the_harness_warms_with_the_last_batch_only():
    heard = []
    one = steps.contestant("x", lambda: heard.append("short"), lambda: heard.append("whole"))
    for _ in range(2):
        call = one.prepare(None)
        call(), call(), call()
    assert heard == ["short", "whole", "whole"] * 2


# --- peers

PROGRAM = """
import json, sys
job = json.loads(input())
print(json.dumps({"contestants": [
    {"name": "good", "what": "w", "numbers": "float32", "settings": {"threads": job["threads"]},
     "error": {"of": "hidden states", "largest": 1e-6, "cosine": 1.0}},
    {"name": "ill", "what": "w", "numbers": "float32", "why": "no such thing"}]}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["warm"] == "die":
        sys.exit("last words")
    print(json.dumps({"tokens": 1}), flush=True)
"""


def test_peers_answer_are_told_why_not_and_end(tmp_path):
    (tmp_path / "encoder_a.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "encoder_b.py").write_text("import no_such_package\n", encoding="utf-8")
    (tmp_path / "other.py").write_text("raise SystemExit\n", encoding="utf-8")
    (folder := tmp_path / "work").mkdir()
    with peers.started(tmp_path, {"threads": 3}, folder, lambda words: None) as found:
        good, ill, absent = found
        assert good.settings == {"threads": 3} and not good.why and ill.why == "no such thing"
        assert absent.name == "b" and "no_such_package" in absent.why
        good.ask(False)
        row, _ = encoder.beside(good)
        assert row["verdict"] == "PASS" and row["kind"] == "peer"
        assert encoder.beside(ill)[0]["outcome"] == "unsupported"
        with pytest.raises(EnvironmentProblem, match="encoder_a.py ended: last words"):
            good.ask("die")
    with pytest.raises(ConfigError, match="--peers"), peers.started(folder, {}, folder, print):
        pass


def test_int8_is_not_judged_by_the_limit_of_float32():
    error = {"of": "hidden states", "largest": 0.7, "cosine": 0.98}
    eight = peers.Peer("x", numbers="int8", error=error)
    assert encoder.beside(eight)[0]["verdict"] == "" and encoder.beside(eight)[0]["cosine"] == 0.98
    assert encoder.beside(peers.Peer("x", error=error))[0]["verdict"] == "FAIL"


@pytest.fixture
def serving(monkeypatch):
    """benchmarks/peers/serving.py, as the programs beside it import it."""
    spec = importlib.util.spec_from_file_location("serving", PEERS / "serving.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "serving", module)
    spec.loader.exec_module(module)
    return module


def test_a_peer_is_tried_for_its_batches_and_compared_with_ours(serving, tmp_path):
    ids = [[1, 2, 3], [4], [5, 6]] * 20
    ours = np.array([[float(i), 1.0] for text in ids for i in text])
    np.save(tmp_path / "hidden.npy", ours)
    job = serving.Job("", [], ids, 0, 8, 1, 1, 2, "", str(tmp_path / "hidden.npy"), "")

    def make(job, wrong=0.0):
        def read(places):
            tokens, mask = job.padded(places)
            assert (tokens[mask == 0] == 0).all() and mask.sum() == sum(len(ids[i]) for i in places)
            return np.stack([tokens + wrong, np.ones_like(tokens)], -1)

        yield serving.one_by_one(read), {}

    one = serving.ready(serving.Contestant("x", "", make), job)
    assert one.settings["texts at once"] in serving.SIZES
    lengths = [len(ids[i]) for group in one.groups for i in group]
    assert lengths == sorted(lengths) and sorted(sum(one.groups, [])) == list(range(60))
    assert serving.difference(one, job) == pytest.approx({"of": "hidden states", "largest": 0, "cosine": 1})
    off = serving.ready(serving.Contestant("x", "", lambda job: make(job, 0.5), ordered=False, size=7), job)
    assert off.groups[0] == list(range(7)) and serving.difference(off, job)["largest"] == 0.5


# --- the verb


@pytest.mark.slow
def test_the_verb_in_small(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "PRODUCTS", {"cpu": ((64, 64, 64),)})
    monkeypatch.setattr(work, "SPELL", 0.01)
    monkeypatch.setenv("MINIBERT_NATIVE", "0")
    words = [
        "bench",
        "encoder",
        "--quick",
        "--model",
        toy / "weights",
        "--texts",
        f"csv:{toy}/texts.csv:text",
    ]
    done = CliRunner().invoke(app, [str(word) for word in (*words, "--out", tmp_path)])
    assert done.exit_code == 0, done.output
    assert "naive" in done.stdout and "products alone" in done.stdout and "tokens/s" in done.stdout
    found = json.loads((tmp_path / "encoder.json").read_text("utf-8"))
    assert (
        found["verb"] == "encoder"
        and found["texts"]["texts"] == 32
        and found["peak"]["float32"]["tflops"] > 0
    )
    assert 0 < found["texts"]["padding_share"] < 1
    rows = {row["step"]: row for row in found["rows"]}
    assert [*rows] == ["products alone", *(step.name for step in steps.STEPS)]
    for name in ("naive", "+ fused attention", "+ sorted", "+ token budget", "+ packed"):
        assert rows[name]["verdict"] == "PASS" and len(rows[name]["rounds"]) == 2
        assert rows[name]["share_of_ceiling"] > 0 and rows[name]["tokens_per_second"]["p50"] > 0
        assert rows[name]["speedup"] is None  # two rounds have no interval
    assert rows["+ native attention"]["outcome"] == "unsupported" and rows["+ native attention"]["why"]
    assert (tmp_path / "encoder.csv").read_text("utf-8").count("\n") == len(rows) + 1


def test_what_can_not_be_read_is_refused(toy):
    for texts, said in (("csv:texts.csv", "csv:FILE:COLUMN"), ("reuters9", "reuters8"),
                        (f"csv:{toy}/texts.csv:txt", "text"), (f"csv:{toy}/texts.csv:empty", "no texts")):  # fmt: skip
        words = ["bench", "encoder", "--quick", "--model", str(toy / "weights"), "--texts", texts]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2 and said in done.stderr, done.stderr


@pytest.fixture(scope="module")
def job(minilm, tmp_path_factory):
    """What peers are given: a few texts, and what our encoder makes of them."""
    model, folder = minibert.load(minilm, head=None, device="cpu"), tmp_path_factory.mktemp("job")
    texts = ["A cat.", "The dog ran fast over the long wooden bridge.", "It is not on the mat, is it?"] * 4
    settings = encoder.Settings(str(minilm), max_tokens=16, threads=1)
    ids = model.tokenize(texts, max_tokens=16).ids
    plain = steps.Reader(steps.Step("plain", "", kernel="reference"), model, ids).hidden()
    return encoder.job_of(settings, model, texts, ids, plain, folder)


@pytest.mark.reference
@pytest.mark.parametrize(
    "name, packages, count",
    [
        ("transformers", "transformers", 4),
        ("sentence_transformers", "sentence_transformers", 1),
        ("onnxruntime", "transformers onnx onnxruntime", 2),
        ("openvino", "transformers onnx openvino nncf", 2),
    ],
)
def test_peers_read_as_we_do(name, packages, count, job, tmp_path):
    for package in packages.split():
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    (some := tmp_path / "peers").mkdir()
    (folder := tmp_path / "work").mkdir()
    for file in ("serving", "exported", f"encoder_{name}"):
        (some / f"{file}.py").write_bytes((PEERS / f"{file}.py").read_bytes())
    with peers.started(some, job, folder, lambda words: None) as found:
        assert len(found) == count
        for peer in found:
            assert not peer.why, peer.why
            peer.ask(True)
            peer.ask(False)
            row, _ = encoder.beside(peer)
            assert row["verdict"] == "PASS" or (peer.numbers == "int8" and row["cosine"] > 0.9), row
