"""Checks of chapters 7 to 9: how it learns, how it is fine-tuned and judged, how it is made fast.

In:  an answer.   Out: "" where it is right, else the rule that it breaks.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict

import numpy as np

from . import Wrong, exercise
from .given import called, close, number, numbers

# --- 7: gradients ---------------------------------------------------------------------------------


def several(found: object, shapes: dict[str, tuple[int, ...]]) -> list[np.ndarray]:
    """The arrays that a function gives together, by name; Wrong where they are not so many, or misshapen."""
    names = ", ".join(shapes)
    if not isinstance(found, (tuple, list)) or len(found) != len(shapes):
        raise Wrong(f"the function gives {len(shapes)} things, in this order: {names}")
    for one, name in zip(found, shapes):
        if one is None:
            raise Wrong(f"{name} is still None")
    return [numbers(one, shape, name) for one, (name, shape) in zip(found, shapes.items())]


@exercise(
    "chapter7.1",
    expects="a function linear_backward(dy, x, W) that gives dx (N, I), dW (O, I) and db (O,)",
    right="Three sums, and the letter that is summed over falls away.",
)
def linear_backward(answer: object) -> str:
    """Against minibert/scratch, whose own tests hold it to finite differences."""
    from ..scratch.layers import Parameters
    from ..scratch.layers import linear_backward as twin

    rng = np.random.default_rng(71)
    dy, x, W = rng.normal(size=(5, 3)), rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
    shapes = {"dx": (5, 4), "dW": (3, 4), "db": (3,)}
    dx, dW, db = several(called(answer, dy, x, W), shapes)
    p = Parameters({"y.weight": W, "y.bias": np.zeros(3)})
    p.grads = defaultdict(float)
    if not close(dx, twin(p, "y", dy, x)):
        return "dx is another: x_ni moves every output o of its token by W_oi, so sum dy_no W_oi over o"
    if close(dW, p.grads["y.weight"] / 5):
        return "dW is a mean over the tokens: what is used for every token gets the sum"
    if not close(dW, p.grads["y.weight"]):
        return "dW is another: W_oi moves output o of every token n by x_ni, so sum dy_no x_ni over n"
    if close(db, p.grads["y.bias"] / 5):
        return "db is a mean over the tokens: what is used for every token gets the sum"
    return "" if close(db, p.grads["y.bias"]) else "db is another: b_o moves output o of every token by 1"


@exercise(
    "chapter7.2",
    expects="a function attention_backward(dc, q, k, v, P) that gives dq, dk and dv, each (n, K)",
    right="With these lines, and nothing else, attention learns where to look.",
)
def attention_backward(answer: object) -> str:
    """Against minibert/scratch, one head of one text."""
    from ..scratch.layers import attention
    from ..scratch.layers import attention_backward as twin

    dc, q, k, v = np.random.default_rng(72).normal(size=(4, 5, 4))  # (n, K) each
    P = attention(q[None], k[None], v[None])[1][0]  # (n, n)
    wanted = [one[0] for one in twin(dc[None], q[None], k[None], v[None], P[None])]
    shapes = dict.fromkeys(("dq", "dk", "dv"), q.shape)
    dq, dk, dv = several(called(answer, dc, q, k, v, P), shapes)
    if close(dv, P @ dc):
        return "dv sums over the keys: it sums P_ij dc_id over the queries i, so P is transposed"
    if not close(dv, wanted[2]):
        return "dv is another: the sum of P_ij dc_id over the queries i"
    dP = dc @ v.T  # (n, n)
    scale, straight = q.shape[1] ** -0.5, P * dP * q.shape[1] ** -0.5
    slips = {
        "dq and dk are too large: the scale 1/√K of the scores stands in the backward pass too": wanted[0]
        / scale,
        "the mean of dP is not taken off: dS = P (dP - the mean of dP weighted by P), row by row": straight
        @ k,
        "the softmax is passed over: dP is of the probabilities, and dS of the scores": dP @ k * scale,
    }
    for rule, slip in slips.items():
        if close(dq, slip):
            return rule
    if not close(dq, wanted[0]):
        return "dq is another: the sum of dS_ij k_jd / √K over the keys j"
    return "" if close(dk, wanted[1]) else "dk is another: the sum of dS_ij q_id / √K over the queries i"


@exercise(
    "chapter7.3",
    expects="a function expected_fall(g, rate) that gives a number",
    right="Where a step does less than this, the slope has changed on the way: the rate is large.",
)
def expected_fall(answer: object) -> str:
    """rate times the sum of all squares."""
    rng, rate = np.random.default_rng(73), 0.1
    g = {"word": rng.normal(size=(3, 4)), "out": rng.normal(size=(5,))}
    squares = [float((one**2).sum()) for one in g.values()]
    found, wanted = number(called(answer, dict(g), rate), "what the function gives"), rate * sum(squares)
    slips = {
        -wanted: "the size is right and the sign is not: a fall is asked for, a positive number",
        sum(squares): "the rate is missing: every number moves by rate · g",
        rate * sum(squares) ** 0.5: "that is with the length of the gradient: each number moves by rate · g, "
        "and E changes by g for each unit of that, so g comes twice",
        rate
        * rate
        * sum(squares): "the rate comes once: a number moves by rate · g, and E changes by g a unit",
        rate * squares[0]: "only the first array of the dict is counted",
        rate * squares[1]: "only the last array of the dict is counted",
        rate * sum(float(one.sum()) for one in g.values()): "slopes of both signs cancel here: each number "
        "moves down its own slope, so all of them make E fall",
        rate * sum(float((one**2).mean()) for one in g.values()): "that is with the mean of the squares: "
        "every number of the model contributes, so it is the sum",
    }
    for slip, rule in slips.items():
        if close(np.array(found), slip):
            return rule
    return "" if close(np.array(found), wanted) else "the number is another: each number of the model counts"


# --- 8: fine-tuning -------------------------------------------------------------------------------


@exercise(
    "chapter8.1",
    expects="a function steps(texts, batch_size, epochs) that gives a whole number",
    right="Whoever halves the batch size doubles the steps; few notice that they changed two settings.",
)
def steps(answer: object) -> str:
    """Against Plan, by which the loop goes."""
    from ..train import Plan

    for texts, size, epochs in ((48, 8, 3), (50, 8, 3), (7, 32, 2)):
        wanted = Plan(texts, epochs, size, 1e-4).steps
        found = number(called(answer, texts, size, epochs), "what the function gives")
        asked = f"for {texts} texts in batches of {size}, {epochs} epochs"
        slips = {
            epochs * (texts // size): "the last batch of an epoch is smaller, and a step too: round up",
            math.ceil(
                epochs * texts / size
            ): "an epoch ends with the texts it has: round up in each, then multiply",
            epochs * texts / size: "there are no parts of a step: round up",
            math.ceil(texts / size): "those are the steps of one epoch",
            epochs * texts: "those are texts, and a step takes a batch of them",
        }
        if found != wanted:
            return f"{asked} came {found:g}: {slips.get(found, 'epochs × texts / batch size, each epoch rounded up')}"
    return ""


@exercise(
    "chapter8.2",
    expects="a function interval(right) that gives two numbers, low and high",
    right="The same lines give an interval to any score, for which nobody knows a formula.",
)
def interval(answer: object) -> str:
    """Against metrics.score on the same texts; its own draws differ by less than the tolerance."""
    from ..metrics import score

    rng = np.random.default_rng(82)
    for n, share in ((150, 0.7), (400, 0.85)):
        right = rng.random(n) < share
        one = score("classification", right.astype(int), np.ones(n, int), names=("accuracy",))["accuracy"]
        found = called(answer, right)
        found = found.tolist() if isinstance(found, np.ndarray) and found.shape == (2,) else found
        low, high = (float(x) for x in several(found, {"low": (), "high": ()}))
        wide, wanted = high - low, one.high - one.low
        if low > high:
            return "low is above high"
        if wide == 0:
            return (
                "low and high are the same: the n texts are drawn with replacement, so that each draw differs"
            )
        if not low <= one.value <= high:
            return f"{low:.2f} to {high:.2f} does not hold the accuracy itself, {one.value:.2f}: is it the mean of a draw?"
        if abs(wide / wanted - 1) < 0.13 and abs(low - one.low) < 0.25 * wanted:
            continue
        said = f"the interval of {n} texts is {wide:.3f} wide, where the bootstrap gives about {wanted:.3f}: "
        if wide < wanted:
            return said + "95 % lie between the percentiles 2.5 and 97.5 of draws of n texts"
        return said + "each draw has n texts, and 95 % of the draws are to lie within, not all of them"
    return ""


@exercise(
    "chapter8.3",
    expects="a function copies(train_texts, test_texts) that gives a list of places",
    right="Run it before training; afterwards nobody likes to hear what it found.",
)
def copies(answer: object) -> str:
    """Case and spaces make no other text; a word more does."""
    train = ["Oil rose  today", "the dollar fell", "Rates are up"]
    test = ["oil Rose today", "the dollar fell", "The dollar fell again", "rates\tare up", "no copy", "Oil"]
    found = called(answer, list(train), list(test))
    try:
        places = [int(one) for one in found]
        whole = all(one == place for one, place in zip(found, places))
    except (TypeError, ValueError):
        return "a list of places is asked for: whole numbers, counted from 0 in the test texts"
    if whole and len(found) == len(test) and set(places) <= {0, 1} and len(places) > 4:
        return "that is a mark for each text: their places are asked for"
    for place, rule in (
        (1, "the same text, letter by letter"),
        (0, "the same but for capital letters and a doubled space"),
        (3, "the same but for a tab in the place of a space"),
    ):
        if place not in places:
            return f"{test[place]!r}, place {place} of the test texts, is not found: it is {rule}"
    extra = [place for place in places if place not in (0, 1, 3)]
    if extra and extra[0] in range(len(test)):
        return f"{test[extra[0]]!r}, place {extra[0]}, is no copy: the whole text must be the same"
    return "" if whole and sorted(places) == [0, 1, 3] else f"each place is named once: {places} is too many"


# --- 9: kernels -----------------------------------------------------------------------------------


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
