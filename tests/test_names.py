"""The name tables: each row used once, readable both ways, equal to the modules' own names and shapes."""

from __future__ import annotations

import pytest

from minibert import heads, names
from minibert.checkpoint import full, plain_names, rows_for
from minibert.encoder import Encoder

from .helpers import FAMILIES, RAW, published, toy_config

KINDS = [(family, kind) for family in FAMILIES for kind in names.NAMES[family].heads]


def letters(family, classes=7):
    c = toy_config(family)
    return {
        "V": c.vocab_size,
        "D": c.hidden_width,
        "F": c.ffn_width,
        "P": c.num_positions,
        "S": c.num_segments,
        "C": classes,
    }


def expected(rows, sizes):
    return {row.ours: tuple(sizes[letter] for letter in row.shape.split()) for row in rows}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tables_name_the_encoders_parameters_and_no_others(family):
    rows, _ = rows_for(names.NAMES[family], 3, None)
    state = {k: tuple(v.shape) for k, v in Encoder(toy_config(family)).state_dict().items()}
    assert expected(rows, letters(family)) == state


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_the_tables_name_the_heads_parameters_and_no_others(family, kind):
    classes = 1 if kind == "regression" else 7
    _, rows = rows_for(names.NAMES[family], 3, kind)
    head = heads.HEADS[kind](toy_config(family), classes)
    assert expected(rows, letters(family, classes)) == {
        k: tuple(v.shape) for k, v in head.state_dict().items()
    }


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_ours_and_theirs_are_one_to_one(family, kind):
    encoder, head = rows_for(names.NAMES[family], 12, kind)
    rows = encoder + head
    assert len({r.ours for r in rows}) == len({r.theirs for r in rows}) == len(rows)
    assert {r.ours: r.theirs for r in rows} == {v: k for k, v in {r.theirs: r.ours for r in rows}.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", [True, False])
def test_theirs_are_the_published_names(family, prefix):
    """Against the names as helpers.py spells them out."""
    tensors = published(family, head=7, prefix=prefix)
    encoder, head = rows_for(names.NAMES[family], RAW[family]["num_hidden_layers"], "classification")
    sizes = letters(family)
    ours = {
        full(r.theirs, f"{family}." if prefix else ""): tuple(sizes[x] for x in r.shape.split())
        for r in encoder + head
    }
    assert ours == {name: tuple(t.shape) for name, t in tensors.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("wrapper", ["", *names.WRAPPERS])
def test_plain_names_can_be_turned_back(family, prefix, wrapper):
    tensors = [wrapper + name for name in published(family, head=7, mlm=True, prefix=prefix)]
    plain, found_wrapper, found_prefix, renamed = plain_names(tensors, names.NAMES[family])
    assert (found_wrapper, found_prefix, renamed) == (wrapper, f"{family}." if prefix else "", [])
    assert [wrapper + full(plain[name], found_prefix) for name in tensors] == tensors


def test_every_row_is_one_tensor_and_every_letter_has_a_key():
    for table in names.NAMES.values():
        for row in [*table.encoder, *table.layer, *(r for rows in table.heads.values() for r in rows)]:
            assert row.part is None and set(row.shape.split()) <= set(names.LETTERS)
            assert ("{}" in row.ours) == ("{}" in row.theirs) == (row in table.layer)


def test_tied_names_are_such_as_are_carried():
    for name, target in names.TIED.items():
        assert name.startswith(names.CARRIED) and target.lstrip("@").startswith(
            ("embeddings.", *names.CARRIED)
        )
