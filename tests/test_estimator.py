"""TextClassifier and TextRegressor by scikit-learn's rules: on toy texts, with its own tools around them."""

from __future__ import annotations

import copy
import dataclasses
import inspect

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks, get_tags

import minibert
from minibert import estimator, spec
from minibert.errors import ConfigError, DataError, TrainingError
from minibert.estimator import KEYS, TextClassifier, TextRegressor, texts_of
from minibert.run import run

from .test_run import task, texts, weights  # noqa: F401  fixtures

# Of the common checks, those that need no matrix of numbers for X.
CHECKS = (
    "check_estimator_cloneable", "check_estimator_repr", "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params", "check_get_params_invariance", "check_set_params",
    "check_mixin_order", "check_estimator_tags_renamed", "check_valid_tag_types",
)  # fmt: skip


def given(n, seed, column=1):
    rows = texts(n, seed)
    return [row[0] for row in rows], [row[column] for row in rows]


# Enough for toy texts, in a second: a mean of words without dropout.
QUICK = {"max_tokens": 16, "pooling": "mean", "dropout": 0.0, "attention_dropout": 0.0, "learning_rate": 5e-3,
         "batch_size": 8, "epochs": 4}  # fmt: skip


@pytest.fixture
def quick(weights):  # noqa: F811
    return {"weights": str(weights), **QUICK}


@pytest.fixture(scope="module")
def fitted(weights):  # noqa: F811
    return TextClassifier(str(weights), **{**QUICK, "epochs": 5}).fit(*given(90, 1))


def test_parameters_are_the_specs_keys_and_defaults():
    params = {
        n: p.default for n, p in inspect.signature(TextClassifier.__init__).parameters.items() if n != "self"
    }
    own = {"weights": "all-MiniLM-L6-v2", "random_state": 0, "verbose": False}
    known = {}
    for table, names in KEYS.items():
        fields = {field.name: field.default for field in dataclasses.fields(spec.TABLES[table])}
        known |= {name: fields[name] for name in names}
    assert params == {**known, **own}
    left = {f.name for f in dataclasses.fields(spec.Train)} - set(KEYS["train"])
    assert left == {"seed", "split_seed", "head_seed", "order_seed", "dropout_seed", "examples", "recompute", "compile",
                    "checkpoint_steps", "checkpoint_minutes", "keep", "trackers", "parallel", "force_dtype"}  # fmt: skip


@pytest.mark.parametrize("kind", [TextClassifier, TextRegressor])
@pytest.mark.parametrize("check", CHECKS)
def test_common_checks(kind, check):
    if not hasattr(estimator_checks, check):
        pytest.skip(f"this scikit-learn has no {check}")
    getattr(estimator_checks, check)(kind.__name__, kind())


def test_tags_clone_and_parameters():
    model = TextClassifier(epochs=7, mask=("email",), random_state=3)
    assert is_classifier(model) and is_regressor(TextRegressor())
    tags = get_tags(model).input_tags
    assert tags.string and tags.one_d_array and not tags.two_d_array
    other = clone(model.set_params(epochs=9))
    assert other.get_params() == model.get_params() and other is not model and "epochs=9" in repr(other)
    with pytest.raises(NotFittedError):
        model.predict(["a"])
    with pytest.raises(NotFittedError):
        model.predict_proba(["a"])


def test_it_learns_and_its_probabilities_follow_classes(fitted):
    X, y = given(45, 2)
    assert list(fitted.classes_) == ["bank", "farm", "ship"] and fitted.score(X, y) > 0.9
    found = fitted.predict_proba(X)
    assert found.shape == (45, 3) and np.allclose(found.sum(1), 1)
    assert (fitted.classes_[found.argmax(1)] == fitted.predict(X)).all()
    assert 1 <= fitted.best_epoch_ <= 5 and fitted.validation_["macro_f1"] > 0.5
    again = copy.deepcopy(fitted)
    assert np.array_equal(again.predict_proba(X), found) and again.model_ is not fitted.model_
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)


def test_fit_is_quiet_writes_nothing_and_repeats_itself(quick, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    X, y = given(45, 1)
    one, two, other = (
        TextClassifier(**{**quick, "epochs": 1}, random_state=seed).fit(X, y).predict_proba(X)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, two) and not np.array_equal(one, other)
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())
    TextClassifier(**{**quick, "epochs": 1}, verbose=True, random_state=np.random.RandomState(0)).fit(X, y)
    assert "texts to learn from" in capfd.readouterr().err


@pytest.mark.parametrize(
    "form", [list, np.array, pd.Series, lambda x: pd.DataFrame({"a": x}), lambda x: [[t] for t in x]]
)
def test_forms_of_texts(form, fitted):
    X, _ = given(6, 3)
    assert texts_of(form(X)) == (X, None)
    assert list(fitted.predict(form(X))) == list(fitted.predict(X))


@pytest.mark.parametrize("form", [list, np.array, lambda x: pd.DataFrame(x, columns=["a", "b"])])
def test_pairs(form, quick):
    X, y = given(45, 1)
    pairs = form([(text, "more new") for text in X])
    assert texts_of(pairs) == (X, ["more new"] * 45)
    model = TextClassifier(**{**quick, "epochs": 1}).fit(pairs, y)
    assert model.predict(pairs).shape == (45,)


@pytest.mark.parametrize(
    ("X", "said"),
    [("one text", "not one alone"), ([], "it has none"), ([("a",), ("a", "b")], "1 and 2"), (["a", None], "row 1: None"),
     ([("a", "b", "c")], "3 entries"), (np.zeros((2, 1)), "not a string")],
)  # fmt: skip
def test_what_is_no_text_is_refused(X, said):
    with pytest.raises(DataError, match=said):
        texts_of(X)


def test_settings_are_checked_as_a_specs(quick):
    X, y = given(30, 1)
    with pytest.raises(ConfigError, match=r"TextClassifier:\n.*truncation = 'middle'(.|\n)*epochs = 0"):
        TextClassifier(**{**quick, "epochs": 0, "truncation": "middle"}).fit(X, y)
    with pytest.raises(ConfigError, match="share of the texts"):
        TextClassifier(**quick, validation="other.csv").fit(X, y)
    with pytest.raises(DataError, match="30 texts and y 29"):
        TextClassifier(**quick).fit(X, y[:29])
    with pytest.raises(DataError, match="one label|two are needed|have label"):
        TextClassifier(**quick).fit(X, ["same"] * 30)
    with pytest.raises(DataError, match="no finite number"):
        TextRegressor(**quick).fit(X, [float("nan"), *range(29)])


@pytest.mark.parametrize("labels", [(10, 9, 2), (True, False, True), ("10", "9", "2")])
def test_labels_keep_their_type_and_order(labels, quick):
    X, y = given(60, 1)
    names = dict(zip(("farm", "bank", "ship"), labels))
    y = np.array([names[one] for one in y])
    model = TextClassifier(**quick).fit(X, y)
    assert np.array_equal(model.classes_, np.unique(y)) and model.classes_.dtype == y.dtype
    assert model.score(X, y) > 0.8


def test_cross_validation_and_a_pipeline(quick):
    X, y = given(90, 1)
    pipeline = make_pipeline(FunctionTransformer(), TextClassifier(**quick))
    assert cross_val_score(pipeline, X, y, cv=2, error_score="raise").mean() > 0.5


def test_a_grid_is_searched(quick):
    X, y = given(90, 1)
    grid = {"learning_rate": np.array([1e-7, 5e-3]), "epochs": np.array([5])}
    search = GridSearchCV(TextClassifier(**quick), grid, cv=2, error_score="raise").fit(
        pd.Series(X), pd.Series(y)
    )
    assert search.best_params_["learning_rate"] == 5e-3 and search.best_score_ > 0.5
    assert list(search.predict(X)) == list(search.best_estimator_.predict(X))


def test_numbers_are_learned_in_their_units(quick, tmp_path):
    X, y = given(90, 1, 2)
    y = np.array(y, float) + 1000
    model = TextRegressor(**{**quick, "epochs": 5}).fit(X, y)
    assert model.score(X, y) > 0.5 and 1000 < model.predict(X).min() < model.predict(X).max() < 1070
    again = TextRegressor.from_run(model.save(tmp_path / "model"))
    assert np.allclose(again.predict(X), model.predict(X), atol=1e-3)
    with pytest.raises(ConfigError, match="regression; TextClassifier is for classification"):
        TextClassifier.from_run(tmp_path / "model")


def test_of_a_run_and_back(weights, fitted, tmp_path):  # noqa: F811
    X, _ = given(9, 5)
    run(task(tmp_path, weights, train={"epochs": 1}, baseline={"kind": "none"}), tmp_path / "run")
    model = TextClassifier.from_run(tmp_path / "run")
    found = minibert.load(tmp_path / "run").predict(X)
    assert list(model.predict(X)) == found["label"].tolist()
    assert np.allclose(model.predict_proba(X), found.filter(like="probability"))
    assert (model.epochs, model.learning_rate, model.validation) == (1, 1e-3, 0.2)
    again = TextClassifier.from_run(fitted.save(tmp_path / "model"))
    assert np.allclose(again.predict_proba(X), fitted.predict_proba(X)) and again.max_tokens == 16


def test_masked_in_fit_and_in_predict(quick, monkeypatch):
    X, y = given(30, 1)
    seen = []
    read = estimator.Model.read

    def reading(self, texts, *rest, **options):
        seen.extend(texts)
        return read(self, texts, *rest, **options)

    monkeypatch.setattr(estimator.Model, "read", reading)
    model = TextClassifier(**{**quick, "epochs": 1}, mask=["email"]).fit([f"{x} a@b.org" for x in X], y)
    model.predict(["see a@b.org"])
    assert len(seen) == 31 and all("[email]" in one and "@" not in one for one in seen)
    assert any("masked" in note for note in model.notes_)


def test_a_training_that_diverges_says_so_and_writes_nothing(quick, tmp_path, monkeypatch):
    """... also behind an epoch that a run would have saved."""
    real, count = minibert.train.accumulate, []

    def breaks(*words):
        count.append(1)
        total, number = real(*words)
        return total * (float("nan") if len(count) > 8 else 1), number

    monkeypatch.setattr(minibert.train, "accumulate", breaks)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError):
        TextClassifier(**quick).fit(*given(60, 1))
    assert not list(tmp_path.iterdir())
