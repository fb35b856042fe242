"""explain/: the numbers of the page are the encoder's, parts add up, what is taken out is out, answers are attributed."""

from __future__ import annotations

import base64
import http.client
import json
import threading

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from minibert import explain
from minibert.batch import pack
from minibert.errors import ConfigError, DataError, EnvironmentProblem
from minibert.explain import attribution, live, measures, sources, story
from minibert.explain.changes import Change, applied
from minibert.explain.outcome import changed, plain
from minibert.heads import HEADS, tie
from minibert.model import Model, evaluating
from minibert.pooling import POOLING, Embedding
from minibert.tokenize import Tokenizer

from .helpers import EVERY, VOCAB, fill, toy_batch, toy_encoder, toy_ids, write_wordpiece

TEXT = "the cat sat on the dog"
LABELS = {"classification": "abc", "multilabel": "abc", "tokens": "xyz"}
KINDS = (None, "classification", "multilabel", "regression", "tokens", "mlm", "pretraining", "nsp", "span")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.from_folder(write_wordpiece(tmp_path_factory.mktemp("words")))


def model_of(tokenizer, kind=None, family="bert", **changes) -> Model:
    encoder = toy_encoder(family, vocab_size=len(VOCAB) if family == "bert" else 101, **changes)
    head = None
    if kind:
        head = HEADS[kind](encoder.config, len(LABELS.get(kind, "")) or None)
        tie(head, encoder.embeddings.word.weight, {})
        fill(head, seed=1)
    return Model(encoder, head, tokenizer, labels=LABELS.get(kind, "")).eval()


@pytest.fixture(scope="module", params=EVERY)
def family(request, tokenizer):
    """Every family, with a classification head."""
    return model_of(tokenizer, "classification", request.param)


def unpacked(array):
    """An array of the story again, float32."""
    shape, text = array
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


@pytest.fixture(scope="module")
def told(family):
    return story.tell(family, TEXT)


# --- the story ------------------------------------------------------------------------------------


def test_its_arrays_are_the_traces(family, told):
    seen = story.follow(family, TEXT)
    arrays = {name: torch.from_numpy(unpacked(array).copy()) for name, array in told["arrays"].items()}
    rotary = told["model"]["rotary"]
    same = [x for x in arrays if x in seen.trace and not (rotary and x.endswith(("query", "key")))]
    assert len(same) >= 8 * told["model"]["layers"]
    for name in same:
        traced = seen.trace[name][0] if name.endswith("probs") else seen.trace[name]
        assert torch.equal(arrays[name], traced.float()), name
    for i in range(told["model"]["layers"]):  # what the page computes of them is what the encoder has
        q, k, v, context = (arrays[f"layers.{i}.{x}"] for x in ("query", "key", "value", "context"))
        scores = torch.einsum("ihk,jhk->hij", q, k) * told["model"]["scale"] + arrays.get(
            f"layers.{i}.bias", 0
        )
        reach, places = told["model"]["windows"][i], torch.arange(len(q))
        if reach:
            scores = scores.masked_fill((places[:, None] - places).abs() > reach, float("-inf"))
        assert torch.allclose(scores.softmax(-1), arrays[f"layers.{i}.probs"], atol=1e-5)
        assert torch.allclose(torch.einsum("hij,jhk->ihk", scores.softmax(-1), v), context, atol=1e-5)


def test_parts_add_up(told):
    for i in range(told["model"]["layers"]):
        parts, out = (unpacked(told["arrays"][f"layers.{i}.{x}"]) for x in ("parts", "attn_out"))
        assert parts.sum(1) == pytest.approx((out**2).sum(1) ** 0.5, rel=1e-4)
        rolled = unpacked(told["arrays"][f"layers.{i}.rollout"])
        assert rolled.sum(1) == pytest.approx([1.0] * len(rolled), rel=1e-5) and rolled.min() >= 0
        ffn = unpacked(told["arrays"][f"layers.{i}.ffn_out"])
        for row, unit in zip(ffn, told["units"][i]):
            assert unit["length"] == pytest.approx((row**2).sum() ** 0.5, rel=1e-5)
            assert sum(x[3] for x in unit["top"]) + unit["rest"] + unit["bias"] == pytest.approx(
                unit["length"], rel=1e-4
            )
            assert [abs(x[3]) for x in unit["top"]] == sorted((abs(x[3]) for x in unit["top"]), reverse=True)


def test_rollout_and_depth_by_hand():
    first, second = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    after = measures.rollout([first, second])
    assert after[0].tolist() == [[1.0, 0.0], [0.25, 0.75]]
    assert after[1].tolist() == [[0.625, 0.375], [0.625, 0.375]]
    found = measures.depth(torch.tensor([[[3.0, 4.0]], [[4.0, -3.0]], [[-8.0, 6.0]]]))
    assert found["norm"].tolist() == [[5.0], [5.0], [10.0]]
    assert found["turn"].flatten().tolist() == pytest.approx([1, 0, -1])
    assert found["same"][0].tolist() == [pytest.approx(row) for row in ([1, 0, 0], [0, 1, -1], [0, -1, 1])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_story_of_every_head(tokenizer, kind):
    model = model_of(tokenizer, kind)
    told = story.tell(model, "the [MASK] sat" if kind in ("mlm", "pretraining") else TEXT)
    n, L, H = len(told["tokens"]), 3, 4
    count = len(told["outcome"]["names"])
    assert len(told["outcome"]["plain"]) == count and told["outcome"]["about"]
    heads, size = told["whatif"]["heads"], told["whatif"]["change"]
    assert [len(row) for row in heads] == [H] * L and {len(x) for row in heads for x in row} == {count}
    assert len(told["whatif"]["layers"]) == L and len(told["whatif"]["positions"]) == count
    assert all(x > 1e-6 for row in size["heads"] for x in row), (
        "a head that changes nothing was not taken out"
    )
    if kind in ("classification", "multilabel", "nsp", "regression"):
        assert told["answer"]["kind"] == kind
    assert (told["fills"] is None) == (told["lens"] is None) == (kind not in ("mlm", "pretraining"))
    if told["lens"]:
        assert [len(x) for x in told["lens"]] == [n] * (L + 1)
        said, filled = told["lens"][L][2][0], told["fills"][0]["top"][0]
        assert said == [filled[0], pytest.approx(filled[1])], "the lens on the last stage is the head"
        assert told["outcome"]["plain"][0] == pytest.approx(told["fills"][0]["top"][0][1])
    json.dumps(told, allow_nan=False)


def test_a_pair_a_long_text_and_what_is_no_text(tokenizer):
    model = model_of(tokenizer)
    assert [t["segment"] for t in story.tell(model, "the cat", "the dog")["tokens"]] == [0] * 4 + [1] * 3
    told = story.tell(model, TEXT, max_tokens=5)
    assert len(told["tokens"]) == 5 and told["cut"] == 3
    assert [t["special"] for t in told["tokens"]] == [True, False, False, False, True]
    for wrong in ([TEXT], None, 3):
        with pytest.raises(DataError, match="one text"):
            story.tell(model, wrong)
    with pytest.raises(ConfigError, match="no room"):
        story.tell(model, TEXT, max_tokens=2)
    with pytest.raises(DataError, match="single text only"):
        story.tell(model_of(tokenizer, "mlm"), "the cat", "[MASK] sat")
    with pytest.raises(DataError, match="more than 4"):
        story.tell(model_of(tokenizer, "mlm"), "the cat [MASK] sat", max_tokens=4)


def test_a_head_made_here_is_called_so(tokenizer, tmp_path):
    from minibert.explain.story import note

    model = model_of(tokenizer, "mlm")
    folder = model.save(tmp_path / "head")
    told = {"head": "trained from new", "after": {"accuracy": 0.16, "perplexity": 460.4}}
    (folder / "pretraining.json").write_text(json.dumps(told))
    from minibert import load

    said = note(load(folder))
    assert "not published" in said and "16%" in said and "460" in said
    (folder / "pretraining.json").write_text(json.dumps(told | {"head": "continued"}))
    assert note(load(folder)) == note(model) == ""
    assert "is new" in note(load(folder, head="classification", labels="abc"))


# --- what is taken out ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_a_head_taken_out_is_one_whose_weights_are_zero(name):
    encoder, batch = toy_encoder(name), toy_batch()
    whole = encoder(batch)
    K, L = encoder.config.head_width, encoder.config.num_layers
    for layer, head in ((0, 1), (L - 1, 3)):
        with applied(encoder, Change(heads=((layer, head),))):
            found = encoder(batch)
        if encoder.config.blocks == L:  # by hand, where a layer's weights are its own
            other = toy_encoder(name)
            with torch.no_grad():
                other.layers[layer].attn.out.weight[:, head * K : head * K + K] = 0
            assert torch.allclose(found, other(batch), atol=1e-6)
        assert not torch.allclose(found, whole, atol=1e-3)
        assert torch.equal(encoder(batch), whole), "it is whole again"


@pytest.mark.parametrize("name", EVERY)
def test_each_text_of_a_batch_may_lose_its_own_parts(name):
    encoder, [ids] = toy_encoder(name), toy_ids((7,))
    changes = [Change(), Change(heads=((1, 2),)), Change(layers=(0, 2)), Change(((0, 1), (2, 3)), (1,))]
    with applied(encoder, *changes):
        together = encoder(pack([ids] * 4)).split(7)
    with pytest.raises(ConfigError, match="all texts"), applied(encoder, Change(positions=True), Change()):
        pass
    for change, found in zip(changes, together):
        with applied(encoder, change):
            assert torch.allclose(found, encoder(pack([ids])), atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_a_layer_taken_out_is_not_walked(name):
    encoder, batch = toy_encoder(name), toy_batch()
    walked = encoder.walk()
    for layer in range(len(walked)):
        with applied(encoder, Change(layers=(layer,))):
            found = encoder(batch)
        hidden = encoder.embeddings(batch)
        for i, block in enumerate(walked):
            hidden = hidden if i == layer else block(hidden, batch.layout.at(i))
        by_hand = hidden if encoder.final_norm is None else encoder.final_norm(hidden)
        assert torch.equal(found, by_hand)


@pytest.mark.parametrize("name", EVERY)
def test_without_positions_order_is_lost(name):
    """Then a text is a bag: tokens in another order get the same vectors, in that order."""
    encoder, ids, order = toy_encoder(name), [5, 9, 17, 33], [2, 0, 3, 1]
    there, back = pack([ids]), pack([[ids[i] for i in order]])
    assert not torch.allclose(encoder(there)[order], encoder(back), atol=1e-3)
    with applied(encoder, Change(positions=True)):
        assert torch.allclose(encoder(there)[order], encoder(back), atol=1e-5)
    assert not torch.allclose(encoder(there)[order], encoder(back), atol=1e-3), "it is whole again"


def test_a_fault_inside_leaves_the_encoder_whole():
    encoder, batch = toy_encoder("mpnet"), toy_batch()
    whole = encoder(batch)
    with pytest.raises(ZeroDivisionError), applied(encoder, Change(((0, 0),), (1,), True)):
        raise ZeroDivisionError
    assert torch.equal(encoder(batch), whole)
    for wrong in (Change(heads=((3, 0),)), Change(heads=((0, 4),)), Change(layers=(-1,))):
        with pytest.raises(ConfigError, match="count from 0"), applied(encoder, wrong):
            pass


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_taken_out_changes_nothing(tokenizer, kind):
    model = model_of(tokenizer, kind)
    batch, _ = story.read(model, TEXT)
    first = plain(model, batch)
    assert torch.allclose(changed(model, batch, first, [Change()])[0], first.plain, atol=1e-6)
    assert first.change(first.plain) == 0
    other = changed(model, batch, first, [Change(layers=(0, 1))])[0]
    assert first.change(other) > 1e-3


def test_without_a_head_the_texts_own_vector_is_compared(tokenizer):
    model = model_of(tokenizer)
    assert story.pooled(model) == "their mean" and set(story.POOLED) == set(POOLING)
    model.embedder = Embedding("cls", True)
    assert story.pooled(model) == "the first of them"
    batch, _ = story.read(model, TEXT)
    first = plain(model, batch)
    with applied(model.encoder, Change(layers=(1,))):
        other = model.encoder(batch).detach()
    values = changed(model, batch, first, [Change(layers=(1,))])[0]
    assert float(values[0]) == pytest.approx(
        float(F.cosine_similarity(other[0], first.hidden[0], dim=0)), abs=1e-5
    )
    assert values[1:].tolist() == pytest.approx(F.cosine_similarity(other, first.hidden).tolist(), abs=1e-5)
    assert first.change(values) == pytest.approx(1 - float(values[0]), abs=1e-6)


# --- attributions ---------------------------------------------------------------------------------


def test_integrated_gradients_add_up(family):
    batch, _ = story.read(family, TEXT)
    found = attribution.targets(family, batch)
    logits = family(batch)[0]
    assert [t.name for t in found] == [LABELS["classification"][i] for i in logits.topk(2).indices.tolist()]
    for target in found:
        told = attribution.attribute(family, batch, target)
        here = batch.token_ids.tolist()
        keep = [family.tokenizer.tokens([i])[0] in family.tokenizer.special_names for i in here]
        bare = pack([[i if k else family.config.pad_id for i, k in zip(here, keep)]])
        number = LABELS["classification"].index(target.name)
        assert told.logit == pytest.approx(float(logits[number].detach()), abs=1e-4)
        assert told.base == pytest.approx(float(family(bare)[0, number].detach()), abs=1e-4)
        assert abs(told.missing) < 1e-3
        assert float(told.integrated.sum()) == pytest.approx(told.logit - told.base, abs=1e-3)
        assert told.integrated[torch.tensor(keep)].abs().max() == 0


@pytest.mark.parametrize("kind", ["multilabel", "regression", "nsp", "mlm", "pretraining"])
def test_other_heads_are_attributed_too(tokenizer, kind):
    model = model_of(tokenizer, kind)
    told = story.tell(model, "the cat [MASK] on the [MASK]" if kind in ("mlm", "pretraining") else TEXT)
    assert told["attribution"] and all(abs(x["missing"]) < 1e-3 for x in told["attribution"])
    if kind in ("mlm", "pretraining"):
        assert [x["target"].split()[-1] for x in told["attribution"]] == ["3", "6"]


def test_gradient_and_occlusion_by_hand(tokenizer):
    model = model_of(tokenizer, "regression")
    model.double()
    batch, _ = story.read(model, TEXT)
    [target] = attribution.targets(model, batch)
    told = attribution.attribute(model, batch, target)
    ids = batch.token_ids.tolist()
    for i in (1, 4):
        ids_without = [*ids[:i], model.tokenizer.mask_id, *ids[i + 1 :]]
        fall = float((model(batch) - model(pack([ids_without])))[0].detach())
        assert float(told.occlusion[i]) == pytest.approx(fall, abs=1e-6)
        vectors = attribution.words(model, batch.token_ids)
        steps = []
        for sign in (1, -1):  # the word's vector a little longer, a little shorter
            moved = vectors.clone()
            moved[i] *= 1 + sign * 1e-4
            steps.append(float(attribution.along(model, batch, target, moved[None])[0]))
        assert float(told.gradient[i]) == pytest.approx((steps[0] - steps[1]) / 2e-4, rel=1e-4, abs=1e-7)


def test_an_unknown_word_is_a_word(tokenizer):
    told = story.tell(model_of(tokenizer, "classification"), "the 世 sat")
    assert [(t["piece"], t["special"]) for t in told["tokens"]][1:3] == [("the", False), ("[UNK]", False)]
    assert told["attribution"][0]["integrated"][2] != 0 != told["attribution"][0]["occlusion"][2]


def test_parameters_get_no_gradient_and_training_mode_comes_back(tokenizer):
    model = model_of(tokenizer, "classification").train()
    story.tell(model, TEXT)
    assert model.training and all(p.grad is None for p in model.parameters())


# --- the code beside it ---------------------------------------------------------------------------


def test_the_lines_are_those_of_the_files(monkeypatch):
    from pathlib import Path

    assert sources.code()["feed_forward"]["symbol"] == "FeedForward.forward"
    assert sources.code(gated=True)["feed_forward"]["symbol"] == "GatedFeedForward.forward"
    modern = {f"{stage}, ModernBERT": told for stage, told in sources.code(gated=True, pre_norm=True).items()}
    for stage, told in {**sources.code(), **modern}.items():
        whole = (
            Path(explain.__file__).parents[2].joinpath(told["file"]).read_text(encoding="utf-8").splitlines()
        )
        there = whole[told["first"] - 1 : told["first"] - 1 + len(told["lines"])]
        margin = len(there[0]) - len(there[0].lstrip())
        assert [line[margin:] for line in there] == told["lines"] and told["marked"], stage
    for pre_norm in (False, True):  # what is marked is what runs, and what the stage is about
        stages = sources.code(pre_norm=pre_norm)
        marked = {stage: [told["lines"][i] for i in told["marked"]] for stage, told in stages.items()}
        for stage, word in (("attended", "attn_norm"), ("fed", "ffn_norm")):
            (line,) = marked[stage]
            assert word in line and ("hidden = hidden +" in line or "return hidden +" in line) == pre_norm
        assert "project(hidden)" in marked["project"][0] and "self.out(" in marked["out"][0]
    monkeypatch.setitem(sources.STAGES, "fed", (sources.STAGES["fed"][0], ("gone(",)))
    with pytest.raises(LookupError, match="gone"):
        sources.code()


# --- the page, as text ----------------------------------------------------------------------------


def test_the_page_is_whole_and_hostile_text_is_text(tokenizer, tmp_path):
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)> <!-- {{ 7 * 7 }}"
    model = model_of(tokenizer, "classification")
    model.labels = ("<b>a</b>", "b", "c")
    source = explain.write(model, hostile, tmp_path / "page.html", "<i>pair</i>").read_text(encoding="utf-8")
    assert source.count("<script") == source.count("</script>") and "alert(1)</" not in source
    assert "<img" not in source and "<b>a" not in source and "49" not in source.split("</title>")[0]
    assert "://" not in source.replace("http://www.w3.org", ""), "nothing is fetched"
    body = source.split('<script type="application/json" id="story">')[1].split("</script>")[0]
    assert json.loads(body)["text"] == hostile


def test_a_page_is_not_written_over_anything(tokenizer, tmp_path):
    model, out = model_of(tokenizer), tmp_path / "page.html"
    out.write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        explain.write(model, TEXT, out)
    assert out.read_text() == "mine"
    explain.write(model, TEXT, out, overwrite=True)
    assert out.read_text() != "mine"
    for wrong, why in ((tmp_path, "it is a folder"), (tmp_path / "no" / "page.html", "no such folder")):
        with pytest.raises(DataError, match=why):
            explain.write(model, TEXT, wrong)


# --- live -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tokenizer):
    model = model_of(tokenizer, "classification")
    with live.server(model, TEXT, None, lambda: "the page", max_tokens=64) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield model, found.server_address[1]
        found.shutdown()


def ask(port, method="POST", path="/change", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    told = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    connection.request(method, path, told, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_live_answers_what_the_model_says(served):
    model, port = served
    assert ask(port, "GET", "/") == (200, b"the page") and ask(port, "GET", "/etc/passwd")[0] == 404
    asked = {"heads": [[0, 1], [2, 3]], "layers": [1], "positions": True, "tokens": {"2": "dog"}}
    status, told = ask(port, body=asked)
    told = json.loads(told)
    assert status == 200 and told["tokens"][2] == "dog"
    batch, _ = story.read(model, "the dog sat on the dog")
    with applied(model.encoder, Change(((0, 1), (2, 3)), (1,), True)), evaluating(model):
        by_hand = model(batch).softmax(-1)[0]
    assert told["values"] == pytest.approx(by_hand.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    "body, word",
    [
        (b"{", "no JSON"),
        ([], "keys"),
        ({"heads": [[9, 0]]}, "no layer 9"),
        ({"heads": [[0, 9]]}, "no head 9"),
        ({"heads": [0]}, "layer, head"),
        ({"layers": ["0"]}, "layer, head"),
        ({"layers": [True]}, "layer, head"),
        ({"positions": 1}, "layer, head"),
        ({"tokens": {"99": "dog"}}, "no token '99'"),
        ({"tokens": {"-1": "dog"}}, "no token '-1'"),
        ({"tokens": {"²": "dog"}}, "no token '²'"),
        ({"tokens": {"1": "dogcat sat"}}, "tokens"),
        ({"tokens": {"1": ""}}, "a word"),
        ({"tokens": []}, "table"),
        ({"delete": True}, "keys"),
        (b"[" * 50_000, "no JSON"),
        (b"1" * 200_000, "100,000"),
    ],
)
def test_live_refuses_what_is_no_change(served, body, word):
    status, told = ask(served[1], body=body)
    assert status == 400 and word in json.loads(told)["error"]
    assert ask(served[1], body={})[0] == 200, "it goes on"


def test_live_is_for_its_own_page_alone(served):
    port = served[1]
    assert ask(port, body={}, Origin="http://elsewhere.example")[0] == 403
    assert ask(port, body={}, Host="elsewhere.example")[0] == 403
    assert ask(port, "GET", "/", Host="elsewhere.example")[0] == 403
    assert ask(port, body={}, Origin=f"http://127.0.0.1:{port}")[0] == 200
    with pytest.raises(EnvironmentProblem, match="port"):
        live.server(served[0], TEXT, None, str, max_tokens=64, port=port)
