"""Checks of chapters 7 and 8: how it learns, how it is fine-tuned and judged.

In:  an answer.   Out: "" where it is right, else the rule that it breaks.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from . import exercise
from .given import called, close, number, several

# --- 7: gradients ---------------------------------------------------------------------------------


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
