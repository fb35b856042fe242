"""Checks of chapters 1 to 4: what a token is, and how tokens look at one another.

In:  an answer.   Out: "" where it is right, else the rule that it breaks.
"""

from __future__ import annotations

import functools

import numpy as np

from . import exercise
from .given import called, close, number, numbers, slip, texts

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
    if close(found, twin(Parameters({"n.weight": w, "n.bias": b}), "n", x, eps)):
        return ""
    formula = "w (x - mean) / sqrt(variance + eps) + b"
    return slip(found, slips) or f"the numbers are others: {formula} is asked for, token by token"


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
    if rule := slip(found, slips):
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
    slips = {
        "64 is the variance, the sum of 64 variances of 1; the standard deviation is another": K,
        "one product has 1; here 64 of them are added up": 1,
        "that is the scale by which a product is multiplied; asked is the product before it": 1 / np.sqrt(K),
    }
    if close(found, np.sqrt(K)):
        return ""
    rule = "the variances of independent terms add up; the standard deviation is the root of the variance"
    return slip(found, slips) or rule


# --- 4: many heads --------------------------------------------------------------------------------

TEXT = (  # as on the page
    "The committee met on Monday to discuss the budget. Its chair, who had been ill, said that the plan would "
    "cost more than expected. Nobody objected, and the vote was postponed until spring."
)


@exercise(
    "chapter4.1",
    expects="a function split_heads(x, H) that gives (H, n, K) from x (n, D)",
    right="No number is computed: heads are a way to read the same columns.",
)
def split_heads(answer: object) -> str:
    """Head h holds the columns h K to (h + 1) K of every token."""
    n, H, K = 5, 3, 4
    x = np.arange(n * H * K, dtype=np.float64).reshape(n, H * K)
    found = numbers(called(answer, x, H), (H, n, K), f"what the function gives for x {x.shape} and H = {H}")
    if np.array_equal(found, x.reshape(n, H, K).swapaxes(0, 1)):
        return ""
    if np.array_equal(found, x.reshape(H, n, K)):
        return (
            "the shape is right, but head 0 got the first tokens: each head needs its columns of every token"
        )
    if np.array_equal(found, x.reshape(n, K, H).transpose(2, 0, 1)):
        return "head 0 got every third column: its columns are next to one another, 0 to K - 1"
    return f"the second token's numbers in head 0 are {found[0, 1]}, where the columns 0 to 3 hold {x[1, :K]}"


@exercise(
    "chapter4.2",
    expects="(layer, head), two whole numbers counted from 0",
    right="Together with the one that looks back, a layer above can tell what stands to the left and right.",
)
def one_place_on(answer: object) -> str:
    """The head with the largest mean of the diagonal above the main one."""
    layer, head = (int(x) for x in numbers(answer, (2,)))
    looks = maps_of_the_text()
    L, H = looks.shape[:2]
    if not (0 <= layer < L and 0 <= head < H):
        swapped = ": is it (layer, head), in this order?" if 0 <= head < L and 0 <= layer < H else ""
        return f"there are layers 0 to {L - 1} and heads 0 to {H - 1}, not ({layer}, {head}){swapped}"
    ahead, back = (np.diagonal(looks, step, 2, 3).mean(-1) for step in (1, -1))  # (L, H)
    if ahead[layer, head] == ahead.max():
        return ""
    if back[layer, head] == back.max():
        return "that is the head that looks one place back: the next token stands on the diagonal above, not below"
    return (
        f"that head looks at the next token with {ahead[layer, head]:.2f}, and another one looks there more"
    )


@functools.cache
def maps_of_the_text() -> np.ndarray:
    """Who looks at whom in TEXT, in MiniLM: (L, H, n, n)."""
    from ..loading import load

    model = load("all-MiniLM-L6-v2")
    trace = model.trace(model.encode([TEXT]))
    return np.stack([trace[f"layers.{i}.probs"][0].numpy() for i in range(model.config.num_layers)])
