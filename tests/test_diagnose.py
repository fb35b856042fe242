"""diagnose.py: each sign on a history that has it, silence on sound ones, and whole runs that are spoilt or sound."""

from __future__ import annotations

import hashlib
import json
import math
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import minibert
from minibert import diagnose, report, spec
from minibert.errors import TrainingError
from minibert.report.read import Run, read_run
from minibert.run import headline, run

from .test_run import task, weights  # noqa: F401  a fixture

LABELS = {
    "classification": {"earn": 120, "acq": 90, "grain": 60},
    "multilabel": {"joy": 100, "anger": 60, "grief": 20},
    "tokens": {"O": 4000, "B-person": 120, "I-person": 60, "B-place": 90},
}
METRICS = {
    "classification": "accuracy",
    "regression": "pearson",
    "multilabel": "micro_f1",
    "tokens": "entity_f1",
}
PARTS = {"embeddings": 1.1, "layers.0": 0.9, "layers.1": 0.8, "layers.2": 1.2, "head": 6.0}


def losses(kind, epochs, per_epoch, end=0.1, seed=0):
    """A sound training loss: from where a new head begins to `end` of what needs no reading, with noise."""
    rng = np.random.default_rng(seed)
    top, chance = {
        "classification": (1.1, 1.06),
        "regression": (1, 1),
        "multilabel": (0.5, 0.47),
        "tokens": (1.39, 0.28),
    }[kind]
    fall = np.exp(-5 * np.linspace(0, 1, epochs * per_epoch))
    return (
        (end * chance + (top - end * chance) * fall) * (1 + 0.1 * rng.standard_normal(len(fall)))
    ).tolist()


def made(kind="classification", epochs=6, per_epoch=17, loss=None, validation=None, test=0.9, **changes):
    """A completed run as its folder would be read; `changes` are of what it holds, by name."""
    loss = loss or losses(kind, epochs, per_epoch)
    by_epoch = [np.mean(loss[e * per_epoch : (e + 1) * per_epoch]) for e in range(epochs)]
    validation = validation or [x * 1.1 for x in by_epoch]
    name, counts = METRICS[kind], LABELS.get(kind, {})
    train = {"epochs": epochs, "learning_rate": 5e-5, **changes.pop("train", {})}
    label = {"label_separator": ","} if kind == "multilabel" else {}
    tables = {
        "task": {"name": "made", "kind": kind},
        "data": {"train": "a.csv", "test": "b.csv", "text": "text", "label": "label", **label},
        "model": {"weights": "x"},
        "train": train,
    }
    rng = np.random.default_rng(1)
    steps = [
        {"event": "step", "step": i + 1, "epoch": i // per_epoch + 1, "loss": x, "learning_rate": train["learning_rate"],
         "grad_norm": 2 + rng.random(), "layer_norms": {k: v * (0.8 + 0.4 * rng.random()) for k, v in PARTS.items()}}
        for i, x in enumerate(loss)
    ]  # fmt: skip
    evaluations = [
        {"event": "evaluation", "step": (e + 1) * per_epoch, "epoch": e + 1, "loss": v, "best": e == epochs - 1,
         "training_loss": by_epoch[e], name: 0.9, "macro_f1": 0.9}
        for e, v in enumerate(validation)
    ]  # fmt: skip
    metrics = {
        "test": {name: {"value": test, "low": test - 0.03, "high": test + 0.03, "n": 400}},
        "validation": {name: 0.9},
    }
    if kind != "regression":
        types = {"tokens": ["person", "place"]}.get(kind, list(counts))
        metrics |= {"labels": list(counts), "classes": [{"label": x, "n": 40, "said": 38} for x in types]}
    if kind == "classification":
        metrics["confusion"] = [[150, 5, 5], [6, 140, 4], [5, 5, 80]]
    parts = {
        "train": {"rows": 270, "labels": counts},
        "validation": {"rows": 60, "labels": counts},
        "test": {"rows": 400},
    }
    held = {"metrics": metrics, "data": {"parts": parts}, "status": {"status": "completed", "metric": name}}
    held |= {"steps": steps, "evaluations": evaluations, "environment": {}, "diagnosis": {}}
    for path, value in changes.items():
        where = held
        *keys, last = path.split("__")
        for key in keys:
            where = where[int(key) if isinstance(where, list) else key]
        where[last] = value
    return Run(Path("made"), spec.parse(tables), **held)


def signs(run):
    return [one.sign for one in diagnose.look(run).findings]


def found(run, sign):
    (one,) = (one for one in diagnose.look(run).findings if one.sign == sign)
    return one


# --- sound runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("seed", range(5))
def test_a_sound_run_is_silent_and_everything_was_looked_for(kind, seed):
    one = diagnose.look(made(kind, loss=losses(kind, 6, 17, seed=seed)))
    assert one.findings == () and one.not_looked_for == {}
    there = len(diagnose.SIGNS) - (2 if kind == "regression" else 0)  # numbers have no classes
    assert len(one.looked_for) == there
    json.dumps(one.as_dict())


@pytest.mark.parametrize("kind", METRICS)
def test_a_hard_task_in_one_epoch_is_no_failure(kind):
    """Little is learned, in 20 steps."""
    assert signs(made(kind, 1, 20, loss=losses(kind, 1, 20, end=0.6))) == []


def test_weights_that_know_the_task_already_may_stay_where_they_are():
    assert signs(made(loss=[0.2 + 0.01 * (i % 3) for i in range(102)])) == []


def test_what_a_run_lacks_is_said():
    """Stopped in its first epoch; and written by a version that knew neither layers nor counts."""
    run = made(evaluations=[], metrics={}, data={}, status={"status": "stopped"})
    one = diagnose.look(run)
    assert one.findings == () and "a training loss that does not fall" in one.not_looked_for
    assert list(one.not_looked_for.values()).count("no test scores") == 3
    assert one.not_looked_for["a validation score that is undefined"] == "no epoch was validated"
    run = made()
    for step in run.steps:
        del step["layer_norms"]
    for row in run.metrics["classes"]:
        del row["said"]
    assert diagnose.look(run).not_looked_for == {
        "layers without gradient": "the history holds no gradients by layer",
        "a class that is never predicted": "no counts of what was predicted",
    }


# --- the loss -------------------------------------------------------------------------------------


def test_the_trivial_loss_is_the_least_that_needs_no_reading():
    """Against a search over all constant answers, weighted and not."""
    counts = torch.tensor([120.0, 90.0, 60.0])
    for setting, weight in (("none", [1, 1, 1]), ({"grain": 3.0}, [1, 1, 3]), ("balanced", 90 / counts)):
        run = made(train={"class_weights": setting})
        logits = torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.LBFGS([logits], max_iter=100)

        def loss(weight=weight, logits=logits):
            share = counts * torch.as_tensor(weight)
            return -(share * logits.log_softmax(0)).sum() / share.sum()

        def closure(optimizer=optimizer, loss=loss):
            optimizer.zero_grad()
            loss().backward()
            return loss()

        optimizer.step(closure)
        assert diagnose.trivial_loss(run, weighted=True) == pytest.approx(loss().item(), abs=1e-5)
        assert diagnose.trivial_loss(run) == pytest.approx(diagnose.trivial_loss(made()))
    run = made("multilabel", data__parts={"train": {"rows": 40, "labels": {"a": 20, "b": 10}}})
    assert diagnose.trivial_loss(run) == pytest.approx(
        (math.log(2) - 0.25 * math.log(0.25) - 0.75 * math.log(0.75)) / 2
    )
    assert diagnose.trivial_loss(made("regression")) == 1.0


@pytest.mark.parametrize("kind", METRICS)
def test_a_loss_that_does_not_fall(kind):
    flat = [losses(kind, 1, 1)[0] + 0.02 * math.sin(i) for i in range(102)]
    run = made(kind, loss=flat, train={"learning_rate": 1e-7})
    one = found(run, "does_not_fall")
    assert "did not fall" in one.sentence and "was 1e-7, after 11 of 102 steps of warm-up" in one.sentence
    assert one.advice == "Raise [train] learning_rate: 1e-5 to 2e-4 is usual."
    assert f"gives {diagnose.trivial_loss(run):.3f}" in one.sentence and diagnose.SIGNS[one.sign].grave


def test_a_loss_that_ends_at_chance_from_above_or_below():
    chance = diagnose.trivial_loss(made())
    noise = [0.02 * math.sin(i) for i in range(102)]
    fell = [chance * (1 + math.exp(-i / 20)) + x for i, x in enumerate(noise)]
    one = found(made(loss=fell, train={"learning_rate": 1e-2}), "does_not_fall")
    assert "fell too little" in one.sentence and one.advice.startswith("Lower [train] learning_rate")
    rose = [chance * (1.1 - 0.6 * math.exp(-i / 20)) + x for i, x in enumerate(noise)]
    one = found(made(loss=rose), "does_not_fall")
    assert "rose" in one.sentence and "another [train] seed" in one.advice


def test_lora_has_rates_of_its_own():
    flat = [1.1 + 0.02 * math.sin(i) for i in range(102)]
    for rate, first in ((5e-5, "Raise"), (5e-4, "Try another")):
        run = made(loss=flat, train={"lora_rank": 8, "learning_rate": rate})
        assert found(run, "does_not_fall").advice.startswith(first)


def test_no_verdict_on_a_run_that_hardly_began():
    flat = [1.1 + 0.02 * math.sin(i) for i in range(102)]
    for done, reason in ((50, "the run ended after 50 of 102 steps"), (52, None)):
        run = made(loss=flat, status={"status": "stopped"})
        del run.steps[done:], run.evaluations[done // 17 :]
        one = diagnose.look(run)
        assert one.not_looked_for.get("a training loss that does not fall") == reason
        assert one.has("does_not_fall") != bool(reason)


RISING = [0.9, 0.5, 0.4, 0.45, 0.52, 0.6]


def test_validation_rises_while_training_falls():
    one = found(made(validation=RISING, evaluations__2__best=True, evaluations__5__best=False), "overfits")
    assert "lowest in epoch 3, 0.400, and rose to 0.600 in epoch 6" in one.sentence
    assert "Accuracy on validation went from 0.900 to 0.900. Kept is epoch 3, by Accuracy." in one.sentence
    assert "epochs = 3, or patience = 2, saves the rest" in one.advice
    by_loss = {"train": {"metric": "loss"}, "evaluations__2__macro_f1": 0.8, "evaluations__5__macro_f1": 0.85}
    one = found(made(validation=RISING, **by_loss), "overfits")
    assert "Macro F1 on validation went from 0.800 to 0.850. Kept is epoch 6, by loss." in one.sentence
    assert "too sure" in one.advice and "saves the rest" not in one.advice


@pytest.mark.parametrize(
    "why, changes",
    [
        ("one epoch may be chance", {"validation": [0.9, 0.5, 0.4, 0.41, 0.42, 0.6]}),
        ("a tenth is little", {"validation": [0.9, 0.5, 0.4, 0.42, 0.43, 0.43]}),
        ("near 0 a tenth is nothing", {"validation": [0.09, 0.05, 0.01, 0.013, 0.015, 0.016]}),
        (
            "nothing is learned",
            {"validation": RISING, "evaluations__2__training_loss": 9, "evaluations__5__training_loss": 5},
        ),
        ("training rises, too", {"validation": RISING, "evaluations__5__training_loss": 0.7}),
    ],
)
def test_validation_that_rises_a_little_is_no_sign(why, changes):
    assert "overfits" not in signs(made(**changes)), why


def test_a_run_that_is_not_finite_says_what_the_error_said():
    message = "step 3: loss nan and gradient norm nan are not finite; rows 1, 2\nLower [train] learning_rate."
    one = found(made(status={"status": "diverged", "message": message}), "not_finite")
    assert one.sentence == "Step 3: loss nan and gradient norm nan are not finite; rows 1, 2."
    assert one.advice == "Lower [train] learning_rate."
    assert (
        signs(made(status={"status": "diverged", "message": "no parameter of the model is trainable"})) == []
    )


# --- the scores -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", METRICS)
def test_test_far_below_validation(kind):
    one = found(made(kind, test=0.6), "test_below")
    assert "is 0.600 on test and 0.900 on validation: 0.300 lower; chance explains 0.1" in one.sentence


def test_a_gap_is_judged_by_the_intervals():
    """The same ten points: chance with 60 validation texts, not with 2,000."""
    assert signs(made(test=0.8)) == []
    assert signs(made(test=0.8, data__parts__validation__rows=2000)) == ["test_below"]
    narrow = {"metrics__test__accuracy": {"value": 0.89, "low": 0.889, "high": 0.891, "n": 10**6}}
    assert signs(made(data__parts__validation__rows=10**6, **narrow)) == [], "one point matters to nobody"


def test_chance_alone_is_taken_for_a_gap_once_in_hundreds_of_runs():
    """Both parts from one population; of 8 epochs, as unlike as independent ones, the best is kept."""
    rng, cried, trials = np.random.default_rng(0), 0, 4000
    for _ in range(trials):
        validation = max(rng.binomial(60, 0.85, 8)) / 60
        right = rng.binomial(400, 0.85) / 400
        half = 1.96 * math.sqrt(right * (1 - right) / 400)
        allowed = diagnose.gap_allowed({"low": right - half, "high": right + half, "n": 400}, 60, 8)
        cried += validation - right > allowed
    assert cried / trials < 0.005


def test_one_answer_for_nearly_all():
    run = made(metrics__confusion=[[158, 2, 0], [150, 0, 0], [90, 0, 0]])
    one = found(run, "one_answer")
    assert "answers “earn” for 100 % of the test texts, which 40 % of them have" in one.sentence.replace(
        "99.5 %", "100 %"
    )
    assert "never_predicted" not in signs(run), "said once"
    mostly = made(metrics__confusion=[[380, 0, 0], [10, 0, 0], [10, 0, 0]], metrics__classes=[])
    assert "one_answer" not in signs(mostly), "95 % have it"


@pytest.mark.parametrize(
    "kind, said", [("multilabel", "gives no label to any"), ("tokens", "marks no entity in any")]
)
def test_no_answer_at_all(kind, said):
    run = made(kind)
    for row in run.metrics["classes"]:
        row["said"] = 0
    assert said in found(run, "one_answer").sentence and "never_predicted" not in signs(run)


@pytest.mark.parametrize("kind", ["classification", "multilabel", "tokens"])
def test_a_class_that_is_never_predicted(kind):
    run = made(kind)
    last = run.metrics["classes"][-1]
    last["said"] = 0
    unit = {"tokens": "entities"}.get(kind, "texts")
    learned = {"classification": 60, "multilabel": 20, "tokens": 90}[kind]
    one = found(run, "never_predicted")
    assert f"never predicted: “{last['label']}” (40 test {unit}, {learned} in training)." in one.sentence
    assert ("class_weights" in one.advice) == (kind != "multilabel")
    last["n"] = diagnose.FEWEST_MISSED - 1
    assert signs(run) == [], "four may all be missed"
    last["n"] = 40
    for tag in ("grain", "grief", "B-place"):
        run.data["parts"]["train"]["labels"].pop(tag, None)
    assert signs(run) == [], "training had none"


def test_many_classes_are_counted_not_listed():
    names = [f"c{i}" for i in range(30)]
    rows = [{"label": name, "n": 5 + i, "said": 9 * (i > 8)} for i, name in enumerate(names)]
    run = made(
        metrics__classes=rows, metrics__confusion=[], data__parts__train__labels=dict.fromkeys(names, 7)
    )
    said = found(run, "never_predicted").sentence
    assert said.startswith(
        "9 classes of 30 are never predicted: “c8” (13 test texts, 7 in training), “c7” (12 test"
    )
    assert said.endswith(" and 4 more.")


def test_a_validation_score_that_is_undefined():
    one = found(made("regression", evaluations__1__pearson=None), "blind_validation")
    assert "Pearson r on validation is undefined in 1 epoch of 6 (2)" in one.sentence
    one = found(made(data__parts__validation={"rows": 12, "labels": {"earn": 12}}), "blind_validation")
    assert "All 12 validation texts have the label “earn”" in one.sentence


# --- the gradients --------------------------------------------------------------------------------


def with_norms(change, **settings):
    run = made(**settings)
    for i, step in enumerate(run.steps):
        change(i, step)
    return run


def test_layers_without_gradient():
    def dies(i, step):
        step["layer_norms"] |= {"embeddings": 0.0, "layers.0": 1e-9, "layers.1": 1e-6}

    one = found(with_norms(dies), "dead_layers")
    assert "reaches embeddings to layers.1: its norm is at most 1e-6 there, and 5.9" in one.sentence
    apart = found(
        with_norms(lambda i, s: s["layer_norms"].update({"layers.0": 0.0, "layers.2": 0.0})), "dead_layers"
    )
    assert "reaches layers.0, layers.2: its norm is at most 0 there," in apart.sentence

    def seldom(i, step):
        step["layer_norms"] |= {"layers.0": 0.0 if i % 3 == 0 else 1.0}

    assert signs(with_norms(seldom)) == [], "most steps reach it"
    assert signs(with_norms(lambda i, s: s["layer_norms"].update({"layers.0": 6e-3}))) == [], (
        "a thousandth is alive"
    )
    assert signs(with_norms(lambda i, s: s.update(layer_norms={"head": s["layer_norms"]["head"]}))) == [], (
        "frozen"
    )


def test_gradients_that_explode():
    def blows(i, step):
        if i % 10 == 9 and i > 20:
            step["grad_norm"] = 900.0 + i
            step["layer_norms"] = {**PARTS, "layers.2": 90.0}

    one = found(with_norms(blows), "exploding")
    assert "in 8 steps of 102 they are longer than 12" in one.sentence
    assert "in step 100 999, most of it in layers.2" in one.sentence
    assert "clip is 1" in one.sentence
    assert "Clip gradients" in found(with_norms(blows, train={"clip": 0.0}), "exploding").advice


def test_hard_batches_are_no_explosion():
    def once(i, step):
        step["grad_norm"] = 600.0 if i in (40, 70) else step["grad_norm"]

    def late(i, step):  # little is left to learn: tiny gradients, and usual ones where a text is still wrong
        step["grad_norm"] = (2.0 if i < 30 else 0.02) if i % 5 else 8.0

    assert signs(with_norms(once)) == [] and signs(with_norms(late)) == []


def test_gradients_far_beyond_the_clip():
    one = found(with_norms(lambda i, s: s.update(grad_norm=150.0 + i % 7)), "exploding")
    assert "in 102 steps of 102" in one.sentence
    assert signs(with_norms(lambda i, s: s.update(grad_norm=50.0 + i % 7))) == []


def test_the_same_advice_is_given_once():
    flat = [1.1 + 0.02 * math.sin(i) for i in range(102)]
    run = made(loss=flat, metrics__confusion=[[160, 0, 0], [150, 0, 0], [90, 0, 0]])
    first, second = diagnose.look(run).findings
    assert "another [train] seed" in first.advice and second.advice == "As above."


# --- whole runs -----------------------------------------------------------------------------------


def written(folder):
    return json.loads((folder / "diagnosis.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_sound_run_of_each_kind_writes_that_nothing_was_found(weights, tmp_path):  # noqa: F811
    for kind in ("classification", "regression"):
        run(task(tmp_path, weights, kind), tmp_path / kind)
        table = written(tmp_path / kind)
        assert table["findings"] == [] and "a training loss that does not fall" in table["looked_for"]
        page = (tmp_path / kind / "report.html").read_text(encoding="utf-8")
        assert f"None of the {len(table['looked_for'])} signs that were looked for was found" in page


def test_a_rate_that_is_too_low_is_said_on_the_terminal_and_on_the_page(weights, tmp_path):  # noqa: F811
    outcome = run(task(tmp_path, weights, train={"epochs": 2, "learning_rate": 1e-7}), tmp_path / "out")
    said = headline(outcome)
    assert "Mind: The training loss did not fall" in said and "Raise [train] learning_rate" in said
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "A training loss that does not fall" in page and 'href="#signs">what was seen' in page
    assert page.count("The training loss did not fall") == 1


@pytest.mark.slow
def test_test_labels_that_do_not_belong_to_their_texts(weights, tmp_path):  # noqa: F811
    one = task(tmp_path, weights, train={"patience": 0}, data={"validation": 0.4})
    table = pd.read_csv(tmp_path / "test.csv")
    table["topic"] = np.roll(table["topic"], 1)
    table.to_csv(tmp_path / "test.csv", index=False)
    outcome = run(one, tmp_path / "out")
    (finding,) = (f for f in written(tmp_path / "out")["findings"] if f["sign"] == "test_below")
    assert finding["details"] and "look at the labels themselves" in finding["details"][0]
    assert "Mind: Accuracy is 0." in headline(outcome)


def digests(folder):
    return {
        p.relative_to(folder): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


@pytest.mark.parametrize("part", ["encoder.layers.0.attn.value", "encoder.layers.1.ffn.up", "head.out"])
def test_a_broken_weight_is_named_and_what_was_saved_stays(part, weights, tmp_path, monkeypatch):  # noqa: F811
    """It breaks behind a stop and a resumption: model/ and every checkpoint are what they were, byte for byte."""
    one, out, models = task(tmp_path, weights, train={"checkpoint_steps": 9, "keep": 9}), tmp_path / "out", []
    logged, made_new = minibert.fit.log_step, minibert.run.new_model

    def new(*words):
        models.append(made_new(*words))
        return models[-1]

    def stops(folder, step, *rest):
        logged(folder, step, *rest)
        if step.step == 30:
            signal.raise_signal(signal.SIGINT)

    def breaks(folder, step, *rest):
        logged(folder, step, *rest)
        if step.step == 34:
            with torch.no_grad():
                models[-1].get_submodule(part).weight[1, 2] = float("nan")

    monkeypatch.setattr(minibert.run, "new_model", new)
    monkeypatch.setattr(minibert.fit, "log_step", stops)
    assert run(one, out).status == "stopped" and written(out)["findings"] == []
    before = digests(out / "model") | digests(out / "checkpoints")
    monkeypatch.setattr(minibert.fit, "log_step", breaks)
    with pytest.raises(TrainingError) as caught:
        run(one, out, resume=True)
    said = str(caught.value)
    assert "step 35: loss nan and gradient norm nan are not finite; learning rate 0.0009" in said
    assert (
        f"not finite first: what {part} gives, whose own weight holds numbers that are not; so with each of these texts by itself"
        in said
    )
    assert "model/ holds epoch" in said
    assert digests(out / "model") | digests(out / "checkpoints") == before and len(before) > 10
    (finding,) = written(out)["findings"]
    assert finding["sign"] == "not_finite" and f"what {part} gives" in finding["sentence"]
    assert f"what {part} gives" in (out / "report.html").read_text(encoding="utf-8")


def test_a_word_that_breaks_one_text_names_its_row(weights, tmp_path, monkeypatch):  # noqa: F811
    one, made_new = task(tmp_path, weights), minibert.run.new_model

    def new(*words):
        model = made_new(*words)
        with torch.no_grad():
            model.encoder.embeddings.word.weight[model.tokenize(["wheat"]).ids[0][1]] = float("inf")
        return model

    monkeypatch.setattr(minibert.run, "new_model", new)
    with pytest.raises(
        TrainingError, match=r"what encoder.embeddings.word gives.*so with row \d+ \(line \d+\)"
    ) as caught:
        run(one, tmp_path / "out")
    rows = pd.read_csv(tmp_path / "train.csv")["text"]
    named = str(caught.value).split("so with ")[1].split(" alone")[0]
    assert all("wheat" in rows[int(part.split()[1])] for part in named.split(", ") if part.startswith("row"))


def test_it_can_be_looked_at_again_from_the_folder(weights, tmp_path):  # noqa: F811
    run(task(tmp_path, weights, train={"epochs": 2, "learning_rate": 1e-7}), tmp_path / "out")
    again = diagnose.look(read_run(tmp_path / "out")).as_dict()
    assert json.loads(json.dumps(again)) == written(tmp_path / "out")
    (tmp_path / "out" / "diagnosis.json").unlink()
    assert "holds no diagnosis" in report.write(tmp_path / "out").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "rate, wanted", [(1e-4, set()), (1e-7, {"does_not_fall"}), (1e-2, {"does_not_fall"})]
)
def test_real_weights_learn_or_do_not(rate, wanted, minilm, data_folder, tmp_path):
    """300 film reviews on MiniLM: silent at a usual rate, and the sign at one that is too low or too high."""
    for part, rows in (("train", 300), ("test", 400)):
        lines = (
            (data_folder / "sst2" / "data" / "SST2" / f"{part}.tsv").read_text(encoding="utf-8").splitlines()
        )
        pairs = [line.split("\t") for line in lines if line.endswith(("\t0", "\t1"))][:rows]
        pd.DataFrame(pairs, columns=["text", "label"]).to_csv(tmp_path / f"{part}.csv", index=False)
    tables = {
        "task": {"name": "reviews", "kind": "classification"},
        "data": {
            "train": "train.csv",
            "test": "test.csv",
            "validation": 0.2,
            "text": "text",
            "label": "label",
        },
        "model": {"weights": str(minilm), "max_tokens": 64},
        "train": {"epochs": 4, "learning_rate": rate, "batch_size": 16},
    }
    run(spec.parse(tables, folder=str(tmp_path)), tmp_path / "out")
    seen = {one["sign"] for one in written(tmp_path / "out")["findings"]}
    assert seen == wanted if rate < 1e-3 else wanted <= seen
