"""The counter's masks: as its definition says, bit for bit, and as good as random."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minibert.batch import pack
from minibert.kernels import Dropout, counter

# Random123's own known answers (kat_vectors, philox4x32 of 10 rounds): counter, key, what comes out.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("numbers", "key", "found"), KNOWN)
def test_philox_gives_the_published_answers(numbers, key, found):
    assert counter.philox(numbers, key) == found
    tensors = counter.philox([torch.tensor([x]) for x in numbers], key)
    assert tuple(int(x) for x in tensors) == found, "also where int64 wraps"


# --- the definition, once more, as another language would write it --------------------------------


def u32(number):
    return np.uint32(number & 0xFFFFFFFF)


def np_philox(words, key):
    (a, b, c, d), (k0, k1) = words, key
    for _ in range(10):
        p0, p1 = np.uint64(a) * np.uint64(0xD2511F53), np.uint64(c) * np.uint64(0xCD9E8D57)
        high = [np.uint32(p >> np.uint64(32)) for p in (p0, p1)]
        a, b, c, d = (
            high[1] ^ b ^ k0,
            np.uint32(p1 & 0xFFFFFFFF),
            high[0] ^ d ^ k1,
            np.uint32(p0 & 0xFFFFFFFF),
        )
        k0, k1 = u32(int(k0) + 0x9E3779B9), u32(int(k1) + 0xBB67AE85)
    return a, b, c, d


def np_dropped(seed, step, layer, row, head, query, keys, p):
    """One query's keys, by the lines of counter.py's docstring."""
    a1, b1, c1, d1 = np_philox((u32(seed), u32(seed >> 32), u32(step), u32(step >> 32)), (u32(layer), u32(0)))
    a2, b2, c2, d2 = np_philox((u32(row), u32(row >> 32), c1, d1), (a1, b1))
    a, b, _, _ = np_philox((u32(query), u32(head), c2, d2), (a2, b2))
    x = a + np.arange(keys, dtype=np.uint32) * u32(0x9E3779B9)
    x ^= x >> u32(16)
    x *= u32(0x21F0AAAD)
    x ^= x >> u32(15)
    x ^= b
    x *= u32(0xD35A2D97)
    x ^= x >> u32(15)
    return x.view(np.int32) < round(p * 2**32) - 2**31


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("key", [(0, 0, 0), (2**63 - 1, 2**40 + 3, 11), (-5, 7, 2**31)], ids=str)
def test_numpy_draws_the_same(key, p):
    rows = (0, 2**33 + 1, 2**62)
    layout = pack([[0] * n for n in (3, 1, 6)], rows=rows, fill_to=12).layout
    found = counter.masks(layout, 2, Dropout(p, key))
    for row, n, mask in zip((*rows, counter.FILLER), layout.lengths, found, strict=True):
        for head in range(2):
            for query in range(n):
                with np.errstate(over="ignore"):
                    gone = np_dropped(*key, row, head, query, n, p)
                assert np.array_equal(mask[head, query].numpy() == 0, gone)
                assert mask[head, query].max() in (0, pytest.approx(1 / (1 - p)))


def test_a_block_is_a_part_of_the_whole():
    queries = counter.query_keys(pack([[0] * 50]).layout, 3, Dropout(0.5)).mT  # (2, H, n)
    whole = counter.dropped(queries, 0, 50, 0.5)
    assert torch.equal(counter.dropped(queries[:, :, 7:9], 20, 45, 0.5), whole[:, 7:9, 20:45])


def test_a_text_is_drawn_by_its_row_and_nothing_else():
    drop = Dropout(0.4, (1, 2, 3))
    first = counter.masks(pack([[0] * 9, [0] * 4], rows=(6, 8)).layout, 3, drop)
    second = counter.masks(pack([[0] * 4, [0] * 30, [0] * 9], rows=(8, 1, 6), fill_to=60).layout, 3, drop)
    assert torch.equal(first[0], second[2]) and torch.equal(first[1], second[0])
    longer = counter.masks(pack([[0] * 12], rows=(6,)).layout, 5, drop)[0]
    assert torch.equal(longer[:3, :9, :9], first[0]), "nor by its length, nor by the number of heads"


# --- as good as random ----------------------------------------------------------------------------

SIGMAS = 4.5  # of a fair draw's spread; a test of a few hundred such is wrong once in thousands


def drawn(key=(0, 0, 0), rows=range(8), n=128, heads=8, p=0.5):
    """(B, H, n, n) of 0 and 1: dropped."""
    layout = pack([[0] * n for _ in rows], rows=list(rows)).layout
    return (torch.stack(counter.masks(layout, heads, Dropout(p, key))) == 0).double()


@pytest.mark.parametrize("p", [0.0, 0.003, 0.1, 0.25, 0.5, 0.9])
def test_the_stated_share_is_dropped(p):
    found = drawn(p=p)
    assert abs(float(found.mean()) - p) <= SIGMAS * (p * (1 - p) / found.numel()) ** 0.5


def test_draws_are_even():
    """Chi-square over 64 equal slices of what a draw can be."""
    edges = torch.stack([drawn(p=i / 64).sum() for i in range(1, 64)])
    total = drawn().numel()
    counts = torch.diff(edges, prepend=torch.zeros(1).double(), append=torch.tensor([total]).double())
    chi = float(((counts - total / 64) ** 2 / (total / 64)).sum())
    assert abs(chi - 63) < SIGMAS * (2 * 63) ** 0.5


def alike(one, other, p):
    """How far two sets of draws go together, in units of chance."""
    return abs(float(((one - p) * (other - p)).mean())) / (p * (1 - p)) * one.numel() ** 0.5


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_neighbours_of_every_kind_are_independent(p):
    found = drawn(p=p)
    for axis, name in enumerate(("row", "head", "query", "key")):
        for lag in (1, 2, 3, 4, 7):
            size = found.shape[axis] - lag
            assert alike(found.narrow(axis, 0, size), found.narrow(axis, lag, size), p) < SIGMAS, (name, lag)
    above = torch.triu_indices(128, 128, 1).unbind()  # (query, key) with query < key
    assert alike(found[..., *above], found.mT[..., *above], p) < SIGMAS, "query and key exchanged"
    for key in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32, 0, 0), (0, 2**32, 0), (-1, 0, 0)]:
        assert alike(found, drawn(key, p=p), p) < SIGMAS, key
    for rows in (range(2**32, 2**32 + 8), range(8, 16)):
        assert alike(found, drawn(rows=rows, p=p), p) < SIGMAS, rows
    assert alike(drawn((1, 2, 3), p=p), drawn((2, 1, 3), p=p), p) < SIGMAS


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_sums_along_every_axis_spread_as_a_binomial(axis):
    """Correlation of any lag, or a line drawn twice, would widen or narrow the spread."""
    found, p = drawn(rows=range(64), n=64, p=0.2), 0.2
    sums = found.sum(axis)
    expected = found.shape[axis] * p * (1 - p)
    ratio = float(((sums - found.shape[axis] * p) ** 2).mean()) / expected
    assert abs(ratio - 1) < SIGMAS * (2 / sums.numel()) ** 0.5 * 1.2  # 1.2: tails of a short binomial


def test_one_bit_of_anything_turns_half_of_a_fair_mask():
    base = dict(seed=3, step=5, layer=2, row=9)

    def mask(seed, step, layer, row):
        return drawn((seed, step, layer), rows=[row], n=64, heads=2)

    still = mask(**base)
    for name in base:
        for bit in (0, 1, 7, 31, 32, 45) if name != "layer" else (0, 1, 7):
            share = float((mask(**{**base, name: base[name] ^ 1 << bit}) != still).double().mean())
            assert abs(share - 0.5) < SIGMAS * 0.5 / still.numel() ** 0.5, (name, bit)
