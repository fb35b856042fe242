"""Checks of chapters 5 and 6: a block, and the whole encoder.

In:  an answer.   Out: "" where it is right, else the rule that it breaks.
"""

from __future__ import annotations

import numpy as np

from . import exercise
from .given import called, close, number, numbers, slip

# --- 5: a block -----------------------------------------------------------------------------------


@exercise(
    "chapter5.1",
    expects="a function add_and_norm(x, y, w, b, eps) that gives (n, D)",
    right="What comes out has the same size whatever was added, so the next part finds what it expects.",
)
def add_and_norm(answer: object) -> str:
    """LayerNorm(x + y), as in Block.forward."""
    from ..scratch.layers import Parameters
    from ..scratch.layers import layer_norm as twin

    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 3, 6))  # (n, D)
    w, b, eps = rng.normal(size=6) + 2, rng.normal(size=6), 0.1
    p = Parameters({"n.weight": w, "n.bias": b})
    found = numbers(called(answer, x, y, w, b, eps), x.shape, "what the function gives")
    slips = {
        "y is normalised and then added: BERT normalises the sum": x + twin(p, "n", y, eps),
        "x is normalised and then y added: BERT normalises the sum": twin(p, "n", x, eps) + y,
        "x is missing: without the residual the token itself is lost": twin(p, "n", y, eps),
        "y is missing: nothing of what the part computed comes out": twin(p, "n", x, eps),
        "the sum is there, the LayerNorm isn't": x + y,
        "w and b are missing": (twin(p, "n", x + y, eps) - b) / w,
    }
    if close(found, twin(p, "n", x + y, eps)):
        return ""
    return slip(found, slips) or "the numbers are others: LayerNorm of x + y is asked for, each token alone"


@exercise(
    "chapter5.2",
    expects="a function gelu(x) that gives an array of x's shape",
    right="At -0.75 it has its lowest point, -0.17: a little of a weak no is let through.",
)
def gelu(answer: object) -> str:
    """x Phi(x) with erf, to 1e-5: the tanh formula is off by up to 5e-4."""
    from ..scratch.layers import gelu as twin

    x = np.linspace(-4, 4, 41)
    found = numbers(called(answer, x), x.shape, "what the function gives for 41 numbers")
    if close(found, twin(x), 1e-5):
        return ""
    bell, like_tanh = np.exp(-x * x / 2) / np.sqrt(2 * np.pi), np.sqrt(8 / np.pi) * (x + 0.044715 * x**3)
    slips = {
        "that is ReLU, with a corner at 0: GELU is smooth": np.maximum(x, 0),
        "that is x sigmoid(x), SiLU": x / (1 + np.exp(-x)),
        "that is an approximation with a sigmoid": x / (1 + np.exp(-1.702 * x)),
        "that is the tanh formula, off by up to 0.0005: BERT's is with erf": x / (1 + np.exp(-like_tanh)),
        "the √2 inside erf is missing": twin(x * np.sqrt(2)) / np.sqrt(2),
        "Φ is the normal distribution's area, not its bell curve": x * bell,
        "that is Φ(x): it is still multiplied by x": twin(x) / np.where(x, x, 1) + (x == 0) / 2,
    }
    formula = "x Φ(x) with Φ(x) = (1 + erf(x / √2)) / 2"
    return slip(found, slips, 1e-5) or f"at x = {x[25]:.1f} it gives {found[25]:.4f}: {formula} is asked for"


@exercise(
    "chapter5.3",
    expects="a whole number",
    right="Twelve such blocks are 85 million of BERT-base's 110 million numbers.",
)
def size_of_a_block(answer: object) -> str:
    """Every row of the name table, by its shape."""
    from ..names import BERT_LAYER

    found, sizes = number(answer), {"D": 768, "F": 3072}
    count = {row.ours: int(np.prod([sizes[x] for x in row.shape.split()])) for row in BERT_LAYER}
    biases = sum(n for name, n in count.items() if name.endswith("bias"))
    norms = sum(n for name, n in count.items() if "norm" in name)
    attention = sum(n for name, n in count.items() if ".attn." in name)
    feed_forward = sum(n for name, n in count.items() if ".ffn." in name)
    whole = sum(count.values())
    slips = {
        whole - norms: "the two LayerNorms are missing, each with a stretch and a shift",
        whole - biases: "all biases are missing, the LayerNorms' shifts among them",
        whole - biases + norms // 2: "the biases of the linear layers are missing",
        whole - biases - norms // 2: "only the large matrices are counted: biases and LayerNorms are missing",
        attention: "that is the attention alone",
        feed_forward: "that is the feed-forward alone",
        whole - attention // 4: "one of the four projections is missing: query, key, value and output",
        12 * whole: "that is all twelve blocks: one is asked for",
    }
    if found == whole:
        return ""
    return slips.get(
        round(found), f"it is off by {found - whole:+,.0f}: count part by part, weights and biases"
    )


# --- 6: the encoder -------------------------------------------------------------------------------


@exercise(
    "chapter6.1",
    expects="a function sentence_vector(hidden) that gives (D,) from (n, D)",
    right="Now a dot product of two sentences is a cosine.",
)
def sentence_vector(answer: object) -> str:
    """The mean of all tokens, of length 1."""
    hidden = 1 + np.random.default_rng(6).normal(size=(5, 8))
    mean = hidden.mean(0)
    found = numbers(called(answer, hidden), mean.shape, "what the function gives for n = 5, D = 8")
    if close(found, mean / np.linalg.norm(mean)):
        return ""
    unit = found / np.linalg.norm(found)
    each = (hidden / np.linalg.norm(hidden, axis=1, keepdims=True)).mean(0)
    slips = {
        "that is the first token alone: the mean of all tokens is asked for": hidden[0],
        "[CLS] and [SEP] are left out: this model was trained with them": hidden[1:-1].mean(0),
        "that is the largest of each column, not the mean": hidden.max(0),
        "the tokens were brought to length 1 first: the mean comes first, then its length": each,
    }
    if close(unit, mean / np.linalg.norm(mean)):
        return f"the direction is right, the length is {np.linalg.norm(found):.2f}, not 1"
    rule = slip(unit, {rule: x / np.linalg.norm(x) for rule, x in slips.items()})
    return rule or "the numbers are others: the mean over the tokens, divided by its length"


@exercise(
    "chapter6.2",
    expects="a function mask(lengths) that gives an array (N, N) of True and False",
    right="Squares along the diagonal, one a text. All else would be computed for nothing.",
)
def mask(answer: object) -> str:
    """True where both tokens are of one text."""
    lengths = [3, 1, 2]
    N = sum(lengths)
    found = numbers(called(answer, list(lengths)), (N, N), f"the mask for the lengths {lengths}")
    text = np.repeat(range(len(lengths)), lengths)
    same = text[:, None] == text
    if np.array_equal(found, same):
        return ""
    if np.array_equal(found, ~same):
        return "it is the other way round: True where a token may look"
    if found.all():
        return "every token sees all others, those of other texts too"
    if np.array_equal(found, np.tril(same)) or np.array_equal(found, np.tril(np.ones((N, N)))):
        return "a token sees only what stands before it, as in GPT: an encoder's tokens look both ways"
    if np.array_equal(found, np.eye(N)):
        return "each token sees only itself: it may see all of its own text"
    i, j = np.argwhere(found != same)[0]
    return f"for the lengths {lengths}, token {i} and token {j} are {'' if same[i, j] else 'not '}of the same text"
