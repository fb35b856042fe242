"""metrics.py against scikit-learn and scipy, its edge cases, and what its intervals promise."""

import dataclasses
import json
import math
import time
import tracemalloc

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as theirs

from minibert import metrics
from minibert.kinds import KINDS

ONE_ANSWER = ("classification", "regression")  # the other kinds: test_counts.py
REFERENCE = {
    "accuracy": theirs.accuracy_score,
    "macro_f1": lambda t, p: theirs.f1_score(t, p, average="macro", zero_division=0),
    "pearson": lambda t, p: stats.pearsonr(t, p).statistic,
    "spearman": lambda t, p: stats.spearmanr(t, p).statistic,
    "rmse": theirs.root_mean_squared_error,
    "mae": theirs.mean_absolute_error,
    "r2": theirs.r2_score,
}


def labels(rng, n, classes, right=0.8):
    truth = rng.integers(classes, size=n)
    return truth, np.where(rng.random(n) < right, truth, rng.integers(classes, size=n))


def values(rng, n, noise=1.0):
    truth = rng.normal(size=n)
    return truth, truth + noise * rng.normal(size=n)


def both(kind, rng, n):
    return labels(rng, n, 5) if kind == "classification" else values(rng, n)


def test_the_names_are_those_of_the_spec():
    assert {kind: tuple(table) for kind, table in metrics.METRICS.items()} == {
        name: kind.metrics for name, kind in KINDS.items()
    }
    assert set(metrics.HIGHER_IS_BETTER) == {name for table in metrics.METRICS.values() for name in table}


@pytest.mark.parametrize("n", [2, 3, 7, 50, 501])
@pytest.mark.parametrize("name", REFERENCE)
def test_equals_the_reference_on_random_data(name, n):
    kind = "classification" if name in metrics.METRICS["classification"] else "regression"
    for seed in range(10):
        truth, predicted = both(kind, np.random.default_rng(seed), n)
        assert metrics.value(name, truth, predicted) == pytest.approx(
            REFERENCE[name](truth, predicted), abs=1e-12
        )


@pytest.mark.parametrize("name", metrics.METRICS["regression"])
@pytest.mark.parametrize("change", ["ties", "large mean", "tiny unit", "large unit", "reversed"])
def test_equals_the_reference_on_awkward_values(name, change):
    truth, predicted = values(np.random.default_rng(3), 200)
    truth, predicted = {
        "ties": (truth.round(), predicted.round()),
        "large mean": (truth + 1e8, predicted + 1e8),
        "tiny unit": (truth * 1e-9, predicted * 1e-9),
        "large unit": (truth * 1e9, predicted * 1e9),
        "reversed": (truth, -predicted),
    }[change]
    assert metrics.value(name, truth, predicted) == pytest.approx(REFERENCE[name](truth, predicted), rel=1e-7)


def test_macro_f1_counts_classes_of_truth_or_prediction_and_no_others():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    expected = np.mean([2 / 3, 1.0, 0.0])  # class 2 was only ever said, class 3 of 4 never occurs
    assert metrics.value("macro_f1", truth, predicted, 4) == pytest.approx(expected)


def test_labels_that_the_model_cannot_know_are_always_wrong():
    truth, predicted = np.array([0, 1, -1, 3, 3]), np.array([0, 1, 0, 1, 2])
    scores = metrics.score("classification", truth, predicted, num_classes=3)
    assert scores["accuracy"].value == pytest.approx(2 / 5)
    assert scores["macro_f1"].value == pytest.approx(REFERENCE["macro_f1"](truth, predicted))
    assert metrics.confusion(truth, predicted, 3).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("kind", ONE_ANSWER)
def test_a_resample_scores_as_the_texts_it_drew(kind):
    """The weighted form of each metric is the reference on the repeated texts, not an approximation."""
    rng = np.random.default_rng(1)
    truth, predicted = labels(rng, 40, 25) if kind == "classification" else values(rng, 40)
    if kind == "regression":
        truth, predicted = truth.round(1), predicted.round(1)  # with ties
    (weights,) = metrics.draws(40, 25, seed=9)
    for name, metric in metrics.METRICS[kind].items():
        for row, got in zip(weights.astype(int), metric(truth, predicted)(weights)):
            drawn = np.repeat(truth, row), np.repeat(predicted, row)
            assert got == pytest.approx(REFERENCE[name](*drawn), abs=1e-12), name


def test_intervals_are_those_of_a_plain_bootstrap():
    truth, predicted = labels(np.random.default_rng(2), 300, 4)
    mine = metrics.score("classification", truth, predicted, resamples=4000)
    rng = np.random.default_rng(77)
    for name in mine:
        picks = [rng.integers(300, size=300) for _ in range(500)]
        low, high = np.percentile([REFERENCE[name](truth[i], predicted[i]) for i in picks], [2.5, 97.5])
        assert (mine[name].low, mine[name].high) == pytest.approx((low, high), abs=0.012)


@pytest.mark.parametrize(
    "name, true_value", [("accuracy", 0.8), ("pearson", 1 / math.sqrt(2)), ("rmse", 1.0)]
)
def test_a_95_percent_interval_covers_the_truth_about_95_times_in_100(name, true_value):
    rng, hits, trials = np.random.default_rng(5), 0, 300
    for trial in range(trials):
        if name == "accuracy":
            pair = labels(rng, 150, 50_000, right=0.8)
            got = metrics.score("classification", *pair, resamples=300, seed=trial)[name]
        else:
            got = metrics.score("regression", *values(rng, 150), resamples=300, seed=trial)[name]
        hits += got.low <= true_value <= got.high
    assert 0.90 <= hits / trials <= 0.985


@pytest.mark.parametrize("kind", ONE_ANSWER)
def test_a_paired_difference_is_sharper_than_two_intervals(kind):
    rng = np.random.default_rng(8)
    truth, first = both(kind, rng, 400)
    second = first.copy()
    second[:20] = truth[:20]  # the same model but for 20 texts, on which it is right
    scores = [metrics.score(kind, truth, one) for one in (second, first)]
    differences = metrics.difference(kind, truth, second, first)
    for name, one in differences.items():
        assert one["value"] == pytest.approx(scores[0][name].value - scores[1][name].value, abs=1e-12)
        assert one["low"] <= one["value"] <= one["high"]
        assert one["high"] - one["low"] < 0.8 * (scores[0][name].high - scores[0][name].low)
        swapped = metrics.difference(kind, truth, first, second)[name]
        assert swapped["low"] == pytest.approx(-one["high"], abs=1e-12)


def test_the_paired_difference_of_accuracy_is_that_of_its_texts():
    """Accuracy is a mean, so its paired interval is the one of the mean of the texts' differences."""
    rng = np.random.default_rng(4)
    truth, ours = labels(rng, 500, 6, right=0.9)
    other = np.where(rng.random(500) < 0.8, truth, (truth + 1) % 6)
    gain = (ours == truth).astype(float) - (other == truth)
    got = metrics.difference("classification", truth, ours, other, resamples=4000)["accuracy"]
    half = 1.96 * gain.std() / math.sqrt(500)
    assert (got["low"], got["high"]) == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.004)


UNDEFINED = {
    "constant truth": (np.full(9, 0.1), np.arange(9.0), {"pearson", "spearman", "r2"}, "true values are all"),
    "constant prediction": (np.arange(9.0), np.full(9, 0.1), {"pearson", "spearman"}, "predictions are all"),
    "one text": (np.ones(1), np.ones(1), {"pearson", "spearman", "r2"}, "one text"),
    "no text": (np.ones(0), np.ones(0), set(metrics.METRICS["regression"]), "0 texts"),
    "a prediction is NaN": (
        np.arange(3.0),
        np.array([1, np.nan, 2]),
        set(metrics.METRICS["regression"]),
        "finite",
    ),
}


@pytest.mark.parametrize("case", UNDEFINED)
def test_what_is_undefined_is_null_with_a_reason(case):
    truth, predicted, undefined, reason = UNDEFINED[case]
    scores = metrics.score("regression", truth, predicted, resamples=50)
    assert {name for name, one in scores.items() if math.isnan(one.value)} == undefined
    for name in undefined:
        plain = scores[name].as_dict()
        assert plain["value"] is plain["low"] is plain["high"] is None
        assert reason in plain["note"]
        json.dumps(plain, allow_nan=False)
    change = metrics.difference("regression", truth, predicted, predicted, resamples=50)
    assert {name for name, one in change.items() if one["value"] is None} == undefined


@pytest.mark.parametrize("n", [0, 1])
def test_classes_of_too_few_texts(n):
    one = metrics.score("classification", np.zeros(n, int), np.zeros(n, int), num_classes=2)["accuracy"]
    assert math.isnan(one.value) == (n == 0)
    assert math.isnan(one.low) and math.isnan(one.high) and one.note


def test_a_test_part_of_one_label_says_so_beside_its_score():
    got = metrics.score("classification", np.zeros(20, int), np.zeros(20, int), num_classes=3)
    assert got["accuracy"].value == 1.0 and "same true label" in got["accuracy"].note


def test_an_interval_that_most_resamples_cannot_give_is_undefined():
    truth, predicted = np.array([0.0, 0, 0, 0, 5]), np.array([0.0, 1, 2, 3, 9])
    got = metrics.score("regression", truth, predicted)["pearson"]  # a third of the draws lack the 5
    assert got.value == pytest.approx(REFERENCE["pearson"](truth, predicted))
    assert math.isnan(got.low) and "no interval" in got.note


def test_a_constant_resample_is_undefined_in_spite_of_rounding():
    for truth in np.random.default_rng(0).normal(size=(100, 7)):
        truth[:6] = truth[0]
        weights = np.array([[2.0, 1, 1, 1, 1, 1, 0]])  # draws all but the one that differs
        assert np.isnan(metrics.METRICS["regression"]["pearson"](truth, np.arange(7.0))(weights)).all()
        assert np.isnan(metrics.METRICS["regression"]["r2"](truth, np.arange(7.0))(weights)).all()


@pytest.mark.parametrize("kind", ONE_ANSWER)
def test_a_column_against_a_row_is_an_error_and_no_broadcast(kind):
    x = np.zeros(4, int)
    for truth, predicted in ((x[:, None], x), (x, x[:, None]), (x[:, None], x[:, None]), (x, x[:3])):
        for call in (metrics.score, lambda *a: metrics.difference(*a, a[-1])):
            with pytest.raises(ValueError, match="shape"):
                call(kind, truth, predicted)
    with pytest.raises(ValueError, match="shape"):
        metrics.difference(kind, x, x, x[:, None])


def test_class_numbers_that_cannot_be_are_errors():
    x = np.zeros(4, int)
    for truth, predicted in ((x, x + 3), (x, x - 1)):
        with pytest.raises(ValueError, match="3 classes"):
            metrics.score("classification", truth, predicted, num_classes=3)
    with pytest.raises(ValueError, match="class numbers, not float64"):
        metrics.score("classification", x, x.astype(float))
    with pytest.raises(ValueError, match="none of accuracy"):
        metrics.value("acuracy", x, x)


def test_the_seed_decides_the_interval_and_nothing_else():
    truth, predicted = values(np.random.default_rng(0), 60)
    a, b, c = (metrics.score("regression", truth, predicted, seed=seed)["mae"] for seed in (0, 0, 1))
    assert a == b and a.low != c.low and a.value == c.value


def test_better_knows_directions_and_puts_nan_last():
    nan = math.nan
    assert metrics.better("accuracy", 0.9, 0.8) and not metrics.better("accuracy", 0.8, 0.8)
    assert metrics.better("rmse", 1.0, 2.0) and not metrics.better("rmse", 2.0, 1.0)
    for name in metrics.HIGHER_IS_BETTER:
        assert metrics.better(name, 0.1, nan) and metrics.better(name, 0.1, None)
        assert not metrics.better(name, nan, 0.1) and not metrics.better(name, nan, nan)


def test_tables_by_class_equal_scikit_learn():
    truth, predicted = labels(np.random.default_rng(6), 200, 5, right=0.6)
    predicted[predicted == 3] = 0  # a class that is never said
    names = ["a", "b", "c", "d", "e"]
    expected = theirs.precision_recall_fscore_support(truth, predicted, labels=range(5), zero_division=0)
    for row, *numbers in zip(metrics.per_class(truth, predicted, names), *expected):
        assert [row[k] for k in ("precision", "recall", "f1", "n")] == pytest.approx(numbers)
    assert [row["label"] for row in metrics.per_class(truth, predicted, names)] == names
    assert [row["said"] for row in metrics.per_class(truth, predicted, names)] == np.bincount(
        predicted, minlength=5
    ).tolist()
    table = metrics.confusion(truth, predicted, 5)
    assert (table == theirs.confusion_matrix(truth, predicted, labels=range(5))).all()
    assert metrics.confusion(truth[:0], predicted[:0], 2).tolist() == [[0, 0], [0, 0]]


def test_two_thousand_resamples_take_little_time_and_memory():
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    tracemalloc.start()
    metrics.score("classification", *labels(rng, 2189, 8))
    metrics.score("regression", *values(rng, 20_000), resamples=200)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.perf_counter() - start < 20  # 0.2 s when written; the bound is for busy machines
    assert most < 120e6


def test_the_average_of_metrics_is_scored_on_the_same_resamples():
    """Of a metric with itself the score; of one and its opposite nothing is left, in every resample."""
    truth = np.arange(40.0)
    said = truth + np.random.default_rng(0).normal(scale=20, size=40)
    pearson = metrics.METRICS["regression"]["pearson"]
    wanted = metrics.score("regression", truth, said, names=["pearson"], resamples=200)["pearson"]
    both = metrics.average([pearson(truth, said)] * 2, 40, resamples=200)
    assert both.note == wanted.note == ""
    assert dataclasses.astuple(both)[:4] == pytest.approx(dataclasses.astuple(wanted)[:4])
    none = metrics.average([pearson(truth, said), pearson(truth, -said)], 40, resamples=200)
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, 0), abs=1e-12)
