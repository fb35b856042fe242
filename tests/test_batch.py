"""The pack: where texts lie in it, what is refused, and the ways to the rectangle and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree

import minibert
from minibert.batch import by_tokens, pack, pad, unpack, unpad
from minibert.errors import DataError

from .helpers import LENGTHS, toy_batch, toy_ids

lengths_of_packs = st.lists(st.integers(1, 9), max_size=6)


def test_three_texts_as_the_module_draws_them():
    batch = pack([[2, 7, 8, 3], [2, 9, 3], [2, 4, 5, 6, 3]])
    assert batch.token_ids.tolist() == [2, 7, 8, 3, 2, 9, 3, 2, 4, 5, 6, 3]
    assert batch.layout.cu_seqlens.tolist() == [0, 4, 7, 12]
    assert batch.layout.cu_seqlens.dtype == torch.int32
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 4]
    assert batch.segments.tolist() == [0] * 12
    assert batch.layout.owner.tolist() == [0] * 4 + [1] * 3 + [2] * 5
    assert batch.layout.starts.tolist() == [0, 4, 7]
    assert (batch.layout.max_seqlen, batch.layout.rows.tolist(), len(batch)) == (5, [0, 1, 2], 3)


def test_filler_is_no_text():
    batch = pack([[5, 6], [7]], [[0, 1], [0]], rows=[40, 2], fill_to=8, fill_id=1, key=(3, 4))
    assert batch.token_ids.tolist() == [5, 6, 7, 1, 1, 1, 1, 1]
    assert batch.segments.tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert batch.layout.lengths == (2, 1, 5) and batch.layout.filler == 5
    assert (
        len(batch) == 2
        and batch.layout.owner.tolist() == [0, 0, 1]
        and batch.layout.starts.tolist() == [0, 2]
    )
    assert batch.layout.rows.tolist() == [40, 2] and batch.layout.key == (3, 4)


def test_full_packs_have_no_filler():
    assert pack([[1, 2]], fill_to=2).layout.filler == 0
    assert pack([], fill_to=3).layout.num_texts == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack([[1], []]), "text 1 of the batch has no tokens"),
        (lambda: pack([[1, -2]]), "0 or more, not -2"),
        (lambda: pack([[1, 2]], [[0, -1]]), "0 or more, not -1"),
        (lambda: pack([[1, 2]], [[0]]), "one number for each token"),
        (lambda: pack([[1, 2]], [[0, 0], [0]]), "one number for each token"),
        (lambda: pack([[1], [2]], rows=[1]), "1 row numbers for 2 texts"),
        (lambda: pack([[1, 2, 3]], fill_to=2), "3 tokens, more than fill_to = 2"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()


@given(lengths_of_packs, st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_unpack_and_unpad_undo(lengths, filler):
    """Also for no texts, one text, and one token."""
    ids = toy_ids(lengths)
    batch = pack(ids, fill_to=sum(lengths) + filler)
    hidden = torch.arange(float(len(batch.token_ids) * 2)).view(-1, 2)
    assert [t.tolist() for t in unpack(batch.token_ids, batch.layout)] == ids
    rectangle, mask = pad(hidden, batch.layout)
    assert rectangle.shape == (*mask.shape, 2) and mask.sum(1).tolist() == list(batch.layout.lengths)
    assert torch.equal(unpad(rectangle, batch.layout), hidden) and torch.equal(rectangle[mask], hidden)
    assert not rectangle[~mask].any()


def test_moving_drops_what_kernels_kept():
    batch = toy_batch()
    assert batch.to("cpu") is batch
    _ = batch.layout.owner
    moved = batch.to("meta")
    assert moved.layout.memo == {} and batch.layout.memo
    assert {t.device.type for t in (moved.token_ids, moved.positions, moved.segments)} == {"meta"}
    assert moved.layout.cu_seqlens.device.type == moved.layout.rows.device.type == "meta"
    assert moved.layout.lengths == LENGTHS


def test_a_pack_is_a_pytree():
    batch = toy_batch(segments=True, fill_to=25, rows=[3, 1, 2], key=(1, 2))
    leaves, spec = _pytree.tree_flatten(batch)
    assert len(leaves) == 5 and all(isinstance(x, torch.Tensor) for x in leaves)
    again = _pytree.tree_unflatten([x.clone() for x in leaves], spec)
    for name in ("token_ids", "positions", "segments"):
        assert torch.equal(getattr(again, name), getattr(batch, name))
    assert again.largest == batch.largest and len(again) == 3
    for name in ("lengths", "max_seqlen", "filler", "key"):
        assert getattr(again.layout, name) == getattr(batch.layout, name)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
@settings(max_examples=100, deadline=None)
def test_groups_keep_every_text_once_and_the_budget(lengths, budget):
    groups = by_tokens(lengths, budget)
    assert sorted(i for g in groups for i in g) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[i] for i in group) <= budget
    flat = [lengths[i] for g in groups for i in g]
    assert flat == sorted(flat)


def test_groups_depend_on_lengths_alone():
    assert by_tokens([7, 3, 3, 9], 10) == [[1, 2], [0], [3]]
    assert by_tokens([30], 10) == [[0]] and by_tokens([], 10) == []


def test_pack_is_public():
    assert minibert.pack is pack and minibert.unpack is unpack


@pytest.mark.parametrize("ids", [[[1, 1.5, 2]], [["a"]], [[1, None]]])
def test_an_id_that_is_no_whole_number_is_refused(ids):
    with pytest.raises(DataError, match="whole numbers"):
        pack(ids)
    with pytest.raises(DataError, match="whole numbers"):
        pack([[1] * len(ids[0])], ids)
