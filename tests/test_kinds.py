"""kinds.py: one table, and every table that is keyed by it has the same keys."""

from __future__ import annotations

import pytest

from minibert import answers, baseline, metrics
from minibert.data import looks, parts
from minibert.kinds import KINDS, each_label, has_entities, metrics_of, words_of
from minibert.report import forms, read, tables, words

BY_KIND = {
    "answers.WANTED": answers.WANTED,
    "answers.SCORED": answers.SCORED,
    "answers.SAID": answers.SAID,
    "answers.LOSS": answers.LOSS,
    "metrics.METRICS": metrics.METRICS,
    "metrics.CHECKS": metrics.CHECKS,
    "data.parts.TARGETS": parts.TARGETS,
    "data.looks.LOOKS": looks.LOOKS,
    "report.read.READERS": read.READERS,
    "report.tables.FACTS": tables.FACTS,
}


@pytest.mark.parametrize("name", BY_KIND)
def test_every_table_by_kind_has_every_kind(name):
    assert set(BY_KIND[name]) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_kinds_words_are_known_where_they_are_used(name):
    kind = KINDS[name]
    assert set(kind.chosen) <= set(kind.metrics) <= set(words.METRIC)
    assert set(kind.baselines) <= {*baseline.FIXED, *baseline.TUNED}
    assert name in forms.FORMS or kind.words
    assert "tfidf" not in kind.baselines or name in baseline.CANDIDATES


def test_entities_are_scored_where_tags_mark_them():
    assert has_entities(["O", "I-x"]) and not has_entities(["O", "B", "NOUN", "BI-x"])
    assert metrics_of("tokens", ["O", "B-x"])[0] == "entity_f1"
    assert metrics_of("tokens", ["NOUN"]) == ("accuracy", "macro_f1")
    assert metrics_of("multilabel", ["B-x"]) == ("micro_f1", "macro_f1", "exact")


def test_words_stand_between_plain_spaces():
    assert words_of("  a\u00a0b  c\td\n") == ["a\u00a0b", "c", "d"] and words_of(" ") == []


def test_each_label():
    assert list(each_label("classification", ["a", "b"])) == ["a", "b"]
    assert list(each_label("multilabel", [("a", "b"), (), ("a",)])) == ["a", "b", "a"]
    assert list(each_label("regression", [1.0])) == []
