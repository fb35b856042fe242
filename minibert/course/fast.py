"""Checks of chapter 9: how attention is made fast, and stays right.

In:  an answer.   Out: "" where it is right, else the rule that it breaks.
"""

from __future__ import annotations

import functools

import numpy as np

from . import exercise
from .given import called, close, number, numbers, several


@exercise(
    "chapter9.1",
    expects="a function padding(lengths) that gives a share between 0 and 1",
    right="One long text among short ones is enough to make most of the work padding.",
)
def padding(answer: object) -> str:
    """Cells of the rectangle that hold no token."""
    for lengths in ((5, 11, 2), (7, 7), (40, 3, 3, 3)):
        cells, real = len(lengths) * max(lengths), sum(lengths)
        found = number(called(answer, list(lengths)), "what the function gives")
        said = f"for the lengths {lengths} came {found:.3f}: "
        slips = {
            real / cells: "that is the share of real tokens",
            (cells - real) / real: "that is padding for each real token; the share of all cells is asked for",
            cells - real: "those are cells; their share is asked for",
            100 * (1 - real / cells): "a share lies between 0 and 1",
            1
            - sum(n * n for n in lengths)
            / (cells * max(lengths)): "those are scores, n² a text; here cells are counted",
        }
        if close(np.array(found), 1 - real / cells, 1e-6):
            continue
        for slip, rule in slips.items():
            if close(np.array(found), slip, 1e-6):
                return said + rule
        return said + "the rectangle has a row for each text, and is as wide as the longest"
    return ""


@exercise(
    "chapter9.2",
    expects="a function mine(q, k, v, layout, *, scale, dropout=None) that gives a tensor (N, H, K)",
    right="The gate passed it, forward and backward, on six ragged texts and three widths of heads.",
)
def kernel(answer: object) -> str:
    """Two texts that must not see each other, the usual slips, then the gate itself."""
    import torch

    from .. import kernels
    from ..batch import pack

    if not callable(answer):
        called(answer)  # says so
    generator = torch.Generator().manual_seed(92)
    q, k, v = torch.randn(3, 9, 2, 4, generator=generator)  # (N, H, K) each
    layout = pack([[0] * 6, [0] * 3]).layout
    run = lambda scale, like: functools.partial(answer, scale=scale)(q, k, v, like)  # noqa: E731
    found = called(lambda: run(0.5, layout))
    if not isinstance(found, torch.Tensor):
        return (
            f"a tensor is asked for, so that gradients can flow through it; this is a {type(found).__name__}"
        )
    numbers(found, tuple(q.shape), "what the kernel gives")
    wanted = {scale: kernels.attend("oracle", q, k, v, layout, scale=scale) for scale in (0.5, 1.0)}
    whole = kernels.attend("oracle", q, k, v, pack([[0] * 9]).layout, scale=0.5)
    same = lambda other: close(found.detach().numpy(), other.numpy(), 1e-4)  # noqa: E731
    if same(whole):
        return "the texts see each other: attention stays inside a text, layout.lengths says where it ends"
    if same(wanted[1.0]):
        return "the scale is missing: scores are multiplied by it before softmax"
    if not same(wanted[0.5]):
        return "its output is another: for each text and head softmax(q kᵀ · scale) v, softmax over the keys"
    name, before = "your answer", dict(kernels.KERNELS)
    try:
        kernels.register(name, devices=("cpu",), dtypes=kernels.FLOATS, dropout="", gradients=True)(answer)
        gate = kernels.check(name)
    except Exception as problem:  # whatever the reader's code does
        return f"in the gate it stopped with {type(problem).__name__}: {problem}"
    finally:
        kernels.KERNELS.clear()
        kernels.KERNELS.update(before)
        kernels.choose_cached.clear()
    word = max(gate.ratios, key=lambda word: gate.ratios[word])
    return (
        ""
        if gate.passed
        else f"the gate: {word} is {gate.ratios[word]:.0f} times as wrong as plain PyTorch's"
    )


@exercise(
    "chapter9.3",
    expects="a function step(most, total, sums, scores, v) that gives the new most, total and sums",
    right="This is all of FlashAttention's arithmetic; the rest is where the numbers lie.",
)
def online(answer: object) -> str:
    """One block after another, against the definition over all keys so far."""
    rng = np.random.default_rng(93)
    scores, v = rng.normal(size=9) * 2 + np.repeat([1.0, 4.0, 0.0], 3), rng.normal(size=(9, 4))
    state = (-np.inf, 0.0, np.zeros(4))
    for block in range(3):
        keys, seen = slice(3 * block, 3 * block + 3), slice(0, 3 * block + 3)
        found = called(answer, *state, scores[keys], v[keys])
        most, total, sums = several(found, {"most": (), "total": (), "sums": (4,)})
        largest = scores[seen].max()
        e = np.exp(scores[seen] - largest)  # (keys so far,)
        at = f"after block {block + 1} "
        if not close(most, largest):
            return at + "`most` is not the largest score of all blocks so far"
        if not close(total, e.sum()):
            return at + forgotten(
                "total", total, state[1], np.exp(scores[keys] - largest).sum(), "exp(score - most)"
            )
        if not close(sums, e @ v[seen]):
            fresh = np.exp(scores[keys] - largest) @ v[keys]  # (K,)
            return at + forgotten("sums", sums, state[2], fresh, "exp(score - most) v, not yet divided,")
        state = (float(most), float(total), sums)
    large = several(called(answer, *state, scores[:3] + 800, v[:3]), {"most": (), "total": (), "sums": (4,)})
    return "" if large[1] < 9 else "with scores of 800 `total` is too large: take the largest off before exp"


def forgotten(name: str, found: np.ndarray, before: object, fresh: object, what: str) -> str:
    """What went wrong with a running sum: found, what it was before this block, and what the block brings."""
    if close(found, fresh):
        return f"`{name}` has forgotten the blocks before: it is a sum over all of them"
    if close(found, before + fresh):
        return f"the old `{name}` was summed under another largest score: it shrinks by exp(old - new) first"
    return f"`{name}` is not the sum of {what} over all keys so far"
