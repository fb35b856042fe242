"""The name tables: each row used once, readable both ways, equal to the modules' own names and shapes."""

from __future__ import annotations

import pytest
import torch

from minibert import config, heads, names
from minibert.checkpoint import full, plain_names, rows_for, theirs_of
from minibert.encoder import Encoder
from minibert.families import reads

from .helpers import EVERY, FAMILIES, published, toy_config

KINDS = [
    (family, kind) for family in EVERY for kind in heads.HEADS if reads(kind) in config.FAMILIES[family].heads
]


def letters(family, classes=7):
    return toy_config(family).sizes | {"C": classes}


def shape_of(row, sizes):
    return tuple(sizes.get(letter) or int(letter) for letter in row.shape.split())


def expected(rows, sizes):
    return {row.ours: shape_of(row, sizes) for row in rows}


@pytest.mark.parametrize("family", EVERY)
def test_the_tables_name_the_encoders_parameters_and_no_others(family):
    rows, _ = rows_for(toy_config(family), None)
    state = {k: tuple(v.shape) for k, v in Encoder(toy_config(family)).state_dict().items()}
    assert expected(rows, letters(family)) == state


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_the_tables_name_the_heads_parameters_and_no_others(family, kind):
    classes = 1 if kind == "regression" else 7
    _, rows = rows_for(toy_config(family), kind)
    fixed = heads.HEADS[kind].outputs is not None
    head = heads.HEADS[kind](toy_config(family), None if fixed else classes)
    assert expected(rows, letters(family, classes)) == {
        k: tuple(v.shape) for k, v in head.state_dict().items()
    }


@pytest.mark.parametrize("family", EVERY)
def test_a_family_has_names_for_the_heads_it_has(family):
    made_of = {"sop"}  # a part of pretraining only
    assert set(names.NAMES[family].heads) == set(config.FAMILIES[family].heads) - made_of


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_ours_and_theirs_are_one_to_one(family, kind):
    encoder, head = rows_for(toy_config(family), kind)
    rows = encoder + head
    assert len({r.ours for r in rows}) == len(rows)
    places = [(r.theirs, i) for r in rows for i in ([r.part] if r.part else [(0, 1)])]
    assert len(set(places)) == len(rows), "each slice of theirs once"
    for theirs in {r.theirs for r in rows}:
        parts = sorted(r.part or (0, 1) for r in rows if r.theirs == theirs)
        assert parts == [(i, len(parts)) for i in range(len(parts))], "and all of them"


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_slices_are_joined_as_they_were_cut(family, kind):
    sizes = letters(family)
    rows = [r for part in rows_for(toy_config(family), kind) for r in part]
    ours = {r.ours: torch.randn(shape_of(r, sizes)) for r in rows}
    theirs = theirs_of(rows, ours)
    for row in rows:
        i, n = row.part or (0, 1)
        assert torch.equal(theirs[row.theirs].chunk(n)[i], ours[row.ours])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", [True, False])
def test_theirs_are_the_published_names(family, prefix):
    """Against the names as helpers.py spells them out."""
    tensors = published(family, head=7, prefix=prefix)
    encoder, head = rows_for(toy_config(family), "classification")
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


def test_every_letter_has_a_key_and_every_layer_a_number():
    for family, table in names.NAMES.items():
        for row in [
            *table.encoder,
            *table.layer,
            *table.later,
            *(r for h in table.heads.values() for r in h),
        ]:
            assert all(x in names.LETTERS or x == "C" or x.isdigit() for x in row.shape.split())
            layered = row in table.layer or row in table.later
            assert ("{}" in row.ours) == ("{}" in row.theirs) == layered
        keys = config.FAMILIES[family].keys
        assert all(
            hasattr(toy_config(family), names.LETTERS[x]) and "hidden_width" in keys for x in names.LETTERS
        )


def test_tied_names_stand_in_a_head():
    every = {r.theirs for table in names.NAMES.values() for rows in table.heads.values() for r in rows}
    words = {"@" + table.encoder[0].theirs for table in names.NAMES.values()}
    for name, target in names.TIED.items():
        assert target in words | every
        assert name in every or name.replace("decoder.bias", "bias") == target
