"""How far people agree: by hand, by Krippendorff's own example, and as computed for published ratings."""

import math
import os

import numpy as np
import pytest

from minibert import catalogue
from minibert.data import read_table
from minibert.errors import DataError
from minibert.metrics import value
from minibert.study import human
from minibert.study.human import Ratings, agreement, alpha, read_ratings

_ = math.nan
# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability: 12 units, 4 observers; the last unit has one value.
UNITS = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]).T  # fmt: skip


@pytest.mark.parametrize("level, printed", [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_what_krippendorff_prints(level, printed):
    assert alpha(UNITS, level) == pytest.approx(printed, abs=0.0005)


def test_alpha_by_hand():
    """Two raters, four texts, one disagreement: 1 - 7 * 2 / (2 * 5 * 3)."""
    pairs = np.array([[0, 0], [0, 0], [1, 1], [0, 1]], float)
    assert alpha(pairs, "nominal") == pytest.approx(1 - 7 * 2 / (2 * 5 * 3))
    assert alpha(pairs, "interval") == alpha(pairs, "nominal")  # of two values one distance apart
    assert alpha(pairs[:3], "ordinal") == 1
    assert alpha(pairs[:2], "interval") is None  # nobody ever said anything else


def table(tmp_path, text, name="ratings.csv", **form):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_table(tmp_path / name, **form)


WIDE = "text,a,b,c\nx,1,2,\ny,3,3,5\nz,,4,\nw,2,2,1\n"
LONG = "id,who,score\nx,a,1\nx,b,2\ny,a,3\ny,b,3\ny,c,5\nz,b,4\nw,a,2\nw,b,2\nw,c,1\n"
LISTS = "1\t1.5\t[1, 2]\n2\t3.7\t[3, 3, 5]\n3\t4\t[4]\n4\t1.7\t[2, 2, 1]\n"


def test_a_row_a_rating_and_a_row_a_text_are_the_same_ratings(tmp_path):
    wide = read_ratings(table(tmp_path, WIDE), "regression", columns=["a", "b", "c"])
    long = read_ratings(table(tmp_path, LONG), "regression", id="id", rater="who", value="score")
    assert wide.raters == long.raters == ("a", "b", "c") and wide.labels == ()
    wanted = np.array([[1, 2, _], [3, 3, 5], [_, 4, _], [2, 2, 1]])
    np.testing.assert_array_equal(wide.values, wanted)
    np.testing.assert_array_equal(long.values, wanted)
    few = read_ratings(
        table(tmp_path, LONG), "regression", id="id", rater="who", value="score", texts={"y", "v"}
    )
    np.testing.assert_array_equal(few.values, wanted[1:2])
    nameless = read_ratings(table(tmp_path, LONG), "regression", id="id", value="score")
    listed = table(tmp_path, LISTS, "r.txt", separator="\t", columns=["id", "mean", "ratings"])
    listed = read_ratings(listed, "regression", columns=["ratings"])
    assert nameless.raters == listed.raters == ()
    np.testing.assert_array_equal(nameless.values, [[1, 2, _], [3, 3, 5], [4, _, _], [2, 2, 1]])
    np.testing.assert_array_equal(listed.values, nameless.values)


def test_what_can_be_no_ratings_is_refused_with_the_place(tmp_path):
    held = table(tmp_path, LONG)
    for keys, words in {
        (): "needs value",
        (("value", "score"), ("columns", ("who", "id"))): "one of them",
        (("value", "score"),): "needs id",
        (("value", "scor"), ("id", "id")): r'no column "scor" \(\[human\] value\); did you mean "score"',
        (("value", "who"), ("id", "id")): "a rating is 'a', no finite number",
        (("value", "score"), ("id", "id"), ("texts", frozenset("v"))): "names none of the task's texts",
        (("columns", ("who",)),): r"row 0 \(line 2\) has who = 'a', no list",
    }.items():
        with pytest.raises(DataError, match=words):
            read_ratings(held, "regression", **dict(keys))
    twice = table(tmp_path, LONG + "x,a,1\n")
    with pytest.raises(DataError, match=r"row 9 \(line 11\) is a second rating of text 'x' by rater 'a'"):
        read_ratings(twice, "regression", id="id", rater="who", value="score")
    with pytest.raises(DataError, match="two texts or more"):
        agreement(Ratings(np.array([[1.0, 2], [1, _]]), (), ()))


def test_two_raters_are_simply_compared(tmp_path):
    """One against the other: which is drawn does not matter to r, and of labels not to agreement."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300)
    values = np.stack([truth + rng.normal(size=300), truth + rng.normal(size=300)], axis=1)
    found = agreement(Ratings(values, ("a", "b"), ()), draws=40, resamples=300)
    r = value("pearson", values[:, 0], values[:, 1])
    of = found["one_against_rest"]["pearson"]
    assert of["value"] == pytest.approx(r, abs=0.01)  # which is first is drawn anew for each text
    assert of["low"] < r < of["high"] and of["n"] == 300
    assert [row["pearson"] for row in found["leave_one_out"]] == pytest.approx([r, r])
    assert found["reliability"] == pytest.approx(2 * r / (1 + r), abs=0.01)  # Spearman and Brown
    assert found["raters_a_text"] == [2, 2.0, 2] and found["ratings"] == 600 and found["raters"] == 2


def test_the_rater_stands_against_the_others_and_not_against_a_mean_with_itself():
    """Of raters who answer by chance none agrees with the others; with the mean of all it would (r = 0.5)."""
    values = np.random.default_rng(0).normal(size=(2000, 4))
    found = agreement(Ratings(values, ("a", "b", "c", "d"), ()), draws=5, resamples=50)
    assert abs(found["one_against_rest"]["pearson"]["value"]) < 0.05
    assert all(abs(row["pearson"]) < 0.08 for row in found["leave_one_out"])
    assert abs(found["alpha"]["interval"]) < 0.05 and abs(found["reliability"]) < 0.1


def test_labels_stand_against_the_majority(tmp_path):
    """c is against a and b in one text of four; by hand, each rater's accuracy against the other two."""
    text = "a,b,c\nyes,yes,yes\nno,no,no\nyes,yes,no\nno,no,no\n"
    ratings = read_ratings(table(tmp_path, text), "classification", columns=["a", "b", "c"])
    assert ratings.labels == ("no", "yes")
    found = agreement(ratings, draws=200, resamples=50)
    assert set(found["one_against_rest"]) == {"accuracy", "macro_f1", "kappa"}
    assert set(found["alpha"]) == {"nominal"} and found["reliability"] is None
    assert [row["rater"] for row in found["leave_one_out"]] == ["a", "b", "c"]
    assert found["leave_one_out"][2]["accuracy"] == 0.75
    # a (or b) beside c is a tie in the third text: right in half of the draws; c is wrong there
    assert found["one_against_rest"]["accuracy"]["value"] == pytest.approx((3 + 2 / 3 * 0.5) / 4, abs=0.02)


def test_kappa_is_scikit_learns():
    from sklearn.metrics import cohen_kappa_score

    truth, predicted = np.random.default_rng(0).integers(4, size=(2, 200))
    predicted[:120] = truth[:120]
    found = human.kappa(truth, predicted)(np.ones((1, 200)))[0]
    assert found == pytest.approx(cohen_kappa_score(truth, predicted), abs=1e-12)


real = pytest.mark.skipif("MINIBERT_DATA" not in os.environ, reason="MINIBERT_DATA names no folder of texts")


# One drawing of one rater a text gave the numbers that the data's catalogue states; here it is the mean of ten. The
# drawings differ by up to 0.009 (one deviation, editorials).
DRAWING = 0.015


@real
@pytest.mark.parametrize("column, one", [("V", 0.449), ("A", 0.334), ("D", 0.268)])
def test_emobanks_readers(column, one):
    held = read_table(catalogue.locate_data("emobank-raters"))
    texts = set(read_table(catalogue.locate_data("emobank")).frame["id"])
    ratings = read_ratings(held, "regression", id="id", value=column, texts=texts)
    assert len(ratings.values) == 10062  # of the 10,548 that were rated
    found = agreement(ratings, resamples=20)
    assert found["one_against_rest"]["pearson"]["value"] == pytest.approx(one, abs=DRAWING)
    alpha = found["alpha"]["interval"]  # that of one reader; of five by the formula of Spearman and Brown
    assert found["reliability"] == pytest.approx(5 * alpha / (1 + 4 * alpha), abs=0.01)
    assert found["leave_one_out"] == [] and found["raters"] is None  # nobody knows who said what


@real
@pytest.mark.parametrize(
    "name, one, reliability",
    [("tweets", 0.860, 0.99), ("amazon", 0.901, 0.99), ("movies", 0.879, 0.99), ("editorials", 0.705, 0.96)],
)
def test_vaders_raters(name, one, reliability):
    names = ["id", "mean", "deviation", "ratings"]
    held = read_table(catalogue.locate_data(f"vader-{name}-raters"), separator="\t", columns=names)
    found = agreement(read_ratings(held, "regression", columns=["ratings"]), resamples=20)
    assert found["one_against_rest"]["pearson"]["value"] == pytest.approx(one, abs=DRAWING)
    assert found["reliability"] == pytest.approx(reliability, abs=0.01)


@real
@pytest.mark.parametrize(
    "appraisal, low, high", [("Pleasant", 0.88, 0.90), ("Responsibility", 0.57, 0.68), ("Effort", 0.26, 0.38)]
)
def test_appraisals_of_three_known_raters(appraisal, low, high):
    """Alpha lies between the smallest and the largest kappa of two of them, which the data's catalogue states."""
    held = read_table(catalogue.locate_data("enisear-appraisals"))
    columns = [f"{appraisal}_a{i}" for i in (1, 2, 3)]
    found = agreement(read_ratings(held, "classification", columns=columns), resamples=20)
    assert low < found["alpha"]["nominal"] < high
    assert [row["rater"] for row in found["leave_one_out"]] == columns
