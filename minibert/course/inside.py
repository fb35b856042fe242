"""Checks of chapters 1 to 6: what is inside an encoder.

In:  an answer.   Out: "" where it is right, else the rule that it breaks.
"""

from __future__ import annotations

import numpy as np

from . import exercise
from .given import called, close, number, numbers, texts

# --- 1: tokens ------------------------------------------------------------------------------------


@exercise(
    "chapter1.1",
    expects="a function wordpieces(word, vocabulary) that gives a list of strings",
    right="Cut by letters alone: a longer match always wins, whatever the word means.",
)
def wordpieces(answer: object) -> str:
    """The longest piece first, ## inside a word, and one [UNK] for all of a word that can't be cut."""
    vocabulary = {"[UNK]": 0, "un": 1, "una": 2, "##ffa": 3, "##f": 4, "##a": 5, "##ble": 6, "a": 7, "b": 8}
    cases = {
        "una": (["una"], "the longest piece that fits is taken, here the whole word"),
        "unaffable": (["una", "##ffa", "##ble"], "at each step the longest piece that fits is taken"),
        "unaxyz": (["[UNK]"], "a word that can't be cut to its end is one [UNK], all of it"),
        "ab": (["[UNK]"], 'inside a word only pieces with "##" in front count, and "b" is none'),
    }
    for word, (wanted, rule) in cases.items():
        found = texts(called(answer, word, vocabulary), f"what the function gives for {word!r}")
        if found != wanted:
            return f"{word!r} became {found}: {rule}"
    return ""


@exercise(
    "chapter1.2",
    expects="a function positions(lengths) that gives a position for every token",
    right="Each text counts from 0, so it is read the same wherever it stands in a pack.",
)
def positions(answer: object) -> str:
    """Counted from 0 in every text."""
    from ..batch import pack

    for lengths in ((4,), (5, 11, 2), (1, 3, 1)):
        wanted = pack([[7] * n for n in lengths]).positions.numpy()
        found = numbers(called(answer, list(lengths)), wanted.shape, f"what comes for the lengths {lengths}")
        if found[0] == 1:
            return "the first token of a text has position 0, not 1"
        if np.array_equal(found, np.arange(len(found))) and len(lengths) > 1:
            return f"for the lengths {lengths} the count runs on: it begins again at 0 with each text"
        if not np.array_equal(found, wanted):
            return (
                f"for the lengths {lengths} came {found.astype(int).tolist()}: each text counts 0, 1, 2, ..."
            )
    return ""


# --- 2: embeddings --------------------------------------------------------------------------------


@exercise(
    "chapter2.1",
    expects="a function nearest(i, table) that gives a row's number",
    right="Length says how strongly a row speaks, direction what of.",
)
def nearest_row(answer: object) -> str:
    """The largest cosine among the other rows."""
    table = np.array([[1, 0], [3, 4], [0.2, 0.04], [2, -1], [-5, 0.1]], dtype=np.float64)
    found = number(called(answer, 0, table), "what the function gives")
    slips = {
        0: "row 0 itself came out: another row is asked for",
        1: "row 1 is long, so its dot product is large, but it points elsewhere: divide by the lengths",
        4: "row 4 points the opposite way: the largest cosine is asked for, with its sign",
    }
    if found != 2:
        return slips.get(found, f"row {found:g} came out, whose cosine with row 0 is smaller than another's")
    return (
        ""
        if number(called(answer, 3, table), "what the function gives") == 0
        else "row 3 is nearest to row 0"
    )


@exercise(
    "chapter2.2",
    expects="a function layer_norm(x, w, b, eps) that gives (N, D)",
    right="Every LayerNorm of the model, thirteen of them, is this function.",
)
def layer_norm(answer: object) -> str:
    """Mean and variance over each token's own D numbers; eps inside the root."""
    from ..scratch.layers import Parameters
    from ..scratch.layers import layer_norm as twin

    rng = np.random.default_rng(2)
    x, w, b, eps = 3 + 2 * rng.normal(size=(3, 5)), rng.normal(size=5) + 2, rng.normal(size=5), 0.5
    found = numbers(called(answer, x, w, b, eps), x.shape, "what the function gives")
    centred, variance = x - x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    larger = variance * 5 / 4  # with D - 1
    own = "mean and variance run over the tokens: they run over each token's own numbers, the last axis"
    slips = {
        own: w * (x - x.mean(0)) / np.sqrt(x.var(0) + eps) + b,
        "eps is outside the root: it is added to the variance": w * centred / (np.sqrt(variance) + eps) + b,
        "eps is missing": w * centred / np.sqrt(variance) + b,
        "the variance is over D - 1 (ddof=1), here it is over D": w * centred / np.sqrt(larger + eps) + b,
        "w and b are missing": centred / np.sqrt(variance + eps),
        "the mean is still in it: it is taken off first": w * x / np.sqrt(variance + eps) + b,
        "it is divided by the variance, not by its root": w * centred / (variance + eps) + b,
    }
    for rule, slip in slips.items():
        if close(found, slip):
            return rule
    right = close(found, twin(Parameters({"n.weight": w, "n.bias": b}), "n", x, eps))
    return "" if right else "the numbers are others: w (x - mean) / sqrt(variance + eps) + b, token by token"


# --- 3: one attention head ------------------------------------------------------------------------

SIX = ("she", "sat", "by", "the", "river", "bank")
KEYS = np.array([[0, 2], [0, 0], [0, 0], [0, 0], [3, 0], [2, 0]], dtype=np.float64)  # of the page's six words


@exercise(
    "chapter3.1",
    expects="a function probabilities(q, k) that gives shares (n, n) from two arrays (n, K)",
    right="Each row sums to 1: attention is spread, never created.",
)
def probabilities(answer: object) -> str:
    """softmax(q k^T / sqrt(K)) over the keys, safe for large scores."""
    rng = np.random.default_rng(3)
    q, k = rng.normal(size=(2, 5, 4))  # (5, 4)
    wanted = looks(q, k)
    found = numbers(called(answer, q, k), wanted.shape, "what the function gives for n = 5")
    if close(found, wanted):
        numbers(called(answer, 100 * q, 100 * k), wanted.shape, "with scores of some thousands the result")
        return ""
    if (found < 0).any():
        return "some shares are below 0: the scores still go through exp"
    slips = {
        "the scores are too large: they are divided by √K before exp": looks(2 * q, k),  # K = 4
        "the scores are divided by K, where √K is meant": looks(q / 2, k),
        "the rows belong to the queries: q @ k.T, where this is k @ q.T": looks(k, q),
    }
    for rule, slip in slips.items():
        if close(found, slip):
            return rule
    if not close(found.sum(1), 1):
        return f"the first row sums to {found[0].sum():.1f}, not 1: softmax runs over the keys, the last axis"
    return "rows sum to 1, but the shares are others: softmax of q @ k.T / √K is asked for"


def looks(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The shares of one head, by the NumPy twin. (n, K) x 2 -> (n, n)."""
    from ..scratch.layers import attention

    return attention(q[None], k[None], k[None])[1][0]


@exercise(
    "chapter3.2",
    expects="a query, an array of 2 numbers",
    right="The direction of a query says whom it finds, its length how surely.",
)
def asks_for_she(answer: object) -> str:
    """Along she's key, and long enough."""
    query = numbers(answer, (2,), "the query")
    shares = looks(query[None], KEYS)[0]
    if shares[0] > 0.95:
        return ""
    if np.ptp(shares) < 0.01:
        return "all shares are alike: a query of zeros asks nothing"
    most = SIX[int(shares.argmax())]
    if most == "she":
        return (
            f'it finds "she", with {shares[0]:.2f}: that is the right direction, but the query is too short'
        )
    return (
        f'it looks at "{most}" most and at "she" with {shares[0]:.2f}: a query finds keys that point its way'
    )


@exercise(
    "chapter3.3",
    expects="a number",
    right="Divided by √64 it is 1 again, whatever the width of a head: that is the scale.",
)
def size_of_a_product(answer: object) -> str:
    """The root of K: variances add up."""
    found, K = number(answer), 64
    rules = {
        K: "64 is the variance, the sum of 64 variances of 1; the standard deviation is another",
        1: "one product has 1; here 64 of them are added up",
        1
        / np.sqrt(K): "that is the scale by which the product is multiplied; asked is the product before it",
    }
    for slip, rule in rules.items():
        if close(np.array(found), slip):
            return rule
    wrong = "the variances of independent terms add up; the standard deviation is the root of the variance"
    return "" if close(np.array(found), np.sqrt(K)) else wrong
