"""Every operation of a BERT, forward and backward.

In:  arrays of one float type.   Out: arrays of the same type.

E is the loss, a single number. For any array `a`, `da` stands for dE/da: an array of a's shape that says how
fast E grows with each number in a. A backward function is given dy, of what its forward returned, and finds dx,
of what its forward was given. All of them come from one rule, the chain rule: x_j moves E through every y_i,

    dx_j = Σ_i dy_i ∂y_i/∂x_j

and from what follows of it at once: of y = a + b, both terms get dy as it is; what is used in two places gets
the sum of what comes back from both; what is used for every token (a bias) gets the sum over tokens.
"""

import math
from collections import defaultdict

import numpy as np
from scipy.special import erf

from ..errors import DataError

Array = np.ndarray
IGNORED = -100  # a target that asks nothing, as in the published training code


class Parameters(dict[str, Array]):
    """Arrays by name. `grads`, by the same names, is what backward has found so far: it begins as 0 and is added to."""

    grads: defaultdict[str, Array]


def linear(p: Parameters, name: str, x: Array) -> Array:
    """y = x W^T + b, each token alone: I numbers in, O out; x (N, I), W (O, I), b (O,) -> (N, O)."""
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]  # (N, O)


def linear_backward(p: Parameters, name: str, dy: Array, x: Array) -> Array:
    """dy (N, O) -> dx (N, I); notes dW (O, I) and db (O,).

    y_no = Σ_i x_ni W_oi + b_o, so ∂y_no/∂x_ni = W_oi, ∂y_no/∂W_oi = x_ni and ∂y_no/∂b_o = 1.
        x_ni moves every output o of its token:    dx_ni = Σ_o dy_no W_oi
        W_oi moves output o of every token n:      dW_oi = Σ_n dy_no x_ni
        b_o  moves output o of every token n:      db_o  = Σ_n dy_no
    Each sum of products is a matrix product: the letter that is summed over falls away.
    """
    p.grads[f"{name}.weight"] += dy.T @ x  # (O, I)
    p.grads[f"{name}.bias"] += dy.sum(0)  # (O,)
    return dy @ p[f"{name}.weight"]  # (N, I)


def embedding(p: Parameters, name: str, ids: Array) -> Array:
    """A row of the table for each token: ids (N,), table (V, D) -> (N, D)."""
    table = p[f"{name}.weight"]
    if ids.min() < 0 or ids.max() >= len(table):
        raise DataError(f"{name} has rows 0 to {len(table) - 1}, asked were {ids.min()} to {ids.max()}")
    return table[ids]  # (N, D)


def embedding_backward(p: Parameters, name: str, dy: Array, ids: Array) -> None:
    """dy (N, D); notes dtable (V, D).

    y_nd = Σ_v [ids_n = v] table_vd, where [...] is 1 if true, else 0: a linear layer on one-hot rows. So
        dtable_vd = Σ_n [ids_n = v] dy_nd
    each row gathers what comes back from all places of its word; words that don't occur get 0.
    """
    dtable = np.zeros_like(p[f"{name}.weight"])
    np.add.at(dtable, ids, dy)  # `dtable[ids] += dy` would count a word that occurs twice once
    p.grads[f"{name}.weight"] += dtable


def layer_norm(p: Parameters, name: str, x: Array, eps: float) -> Array:
    """y = w z + b, where z is x with mean 0 and variance 1 in each token: (N, D) -> (N, D)."""
    return p[f"{name}.weight"] * standardise(x, eps)[0] + p[f"{name}.bias"]  # (N, D)


def standardise(x: Array, eps: float) -> tuple[Array, Array]:
    """z (N, D), and r (N, 1), by which x minus its mean was multiplied."""
    c = x - x.mean(-1, keepdims=True)  # (N, D)
    r = 1 / np.sqrt((c * c).mean(-1, keepdims=True) + eps)  # (N, 1)
    return c * r, r


def layer_norm_backward(p: Parameters, name: str, dy: Array, x: Array, eps: float) -> Array:
    """dy (N, D) -> dx (N, D); notes dw and db (D,).

    y = w z + b in every token, so dw = Σ_n dy z, db = Σ_n dy, and g := dz = dy w. Now one token alone:
    z_i = c_i r with r = (v + eps)^(-1/2), v = mean(c²), c = x - mean(x). c_j moves E directly, and through r:
        ∂r/∂c_j = -1/2 (v + eps)^(-3/2) ∂v/∂c_j = -1/2 r³ 2 c_j/D = -r² z_j/D
        dr      = Σ_i g_i c_i = Σ_i g_i z_i / r
        dc_j    = g_j r - r² z_j/D Σ_i g_i z_i / r = r (g_j - z_j mean(g z))
    x_j moves c_j, and through the mean every c_i by -1/D, so dx_j = dc_j - mean(dc). As mean(z) = 0,
    mean(dc) = r mean(g), and
        dx_j    = r (g_j - mean(g) - z_j mean(g z))
    What would only shift or stretch the vector is taken out of g: LayerNorm undoes it anyway.
    """
    z, r = standardise(x, eps)
    p.grads[f"{name}.weight"] += (dy * z).sum(0)  # (D,)
    p.grads[f"{name}.bias"] += dy.sum(0)  # (D,)
    g = dy * p[f"{name}.weight"]  # (N, D)
    return r * (g - g.mean(-1, keepdims=True) - z * (g * z).mean(-1, keepdims=True))  # (N, D)


def gelu(x: Array) -> Array:
    """x Φ(x), each number alone. Φ(x) = (1 + erf(x/√2)) / 2 is how likely a standard normal number is below x."""
    return x * 0.5 * (1 + erf(x * math.sqrt(0.5)))


def gelu_backward(dy: Array, x: Array) -> Array:
    """dy -> dx, each number alone.

    By the product rule (x Φ)' = Φ + x Φ', and Φ' is the normal density: with erf'(t) = 2/√π exp(-t²) and
    t = x/√2, Φ' = 1/2 · 2/√π exp(-x²/2) · 1/√2 = exp(-x²/2) / √(2π).
    """
    below, density = 0.5 * (1 + erf(x * math.sqrt(0.5))), np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return dy * (below + x * density)


def tanh_backward(dy: Array, y: Array) -> Array:
    """Of y = tanh(x) = sinh/cosh: as sinh' = cosh and cosh' = sinh, tanh' = (cosh² - sinh²)/cosh² = 1 - y²."""
    return dy * (1 - y * y)


def softmax(s: Array) -> Array:
    """p_i = exp(s_i) / Σ_k exp(s_k) along the last axis; the largest is taken off first, or exp overflows."""
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_backward(dp: Array, p: Array) -> Array:
    """dp -> ds, along the last axis.

    With Z = Σ_k exp(s_k): s_j moves p_j through its own exp, and every p_i through Z, of which ∂Z/∂s_j = exp(s_j):
        ∂p_i/∂s_j = [i = j] exp(s_i)/Z - exp(s_i)/Z² exp(s_j) = p_i ([i = j] - p_j)          (the Jacobian)
        ds_j = Σ_i dp_i p_i ([i = j] - p_j) = p_j (dp_j - Σ_i dp_i p_i)
    Only a score whose dp is above the mean of dp, weighted by p, gains: probabilities compete.
    """
    return p * (dp - (dp * p).sum(-1, keepdims=True))


def attention(q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    """One text, all heads: q, k, v (H, n, K) -> scores (H, n, n), probs (H, n, n), context (H, n, K)."""
    scores = q @ k.swapaxes(1, 2) * q.shape[-1] ** -0.5  # (H, n, n)
    probs = softmax(scores)  # (H, n, n)
    return scores, probs, probs @ v


def attention_backward(dc: Array, q: Array, k: Array, v: Array, probs: Array) -> tuple[Array, Array, Array]:
    """dc (H, n, K), of the context c -> dq, dk, dv (H, n, K).

    In one head, of token i looking at token j; both products are linear in each of their factors:
        c_id = Σ_j P_ij v_jd           dP_ij = Σ_d dc_id v_jd,        dv_jd = Σ_i P_ij dc_id
        P_i = softmax(S_i)             dS from dP by softmax_backward, row by row
        S_ij = Σ_d q_id k_jd / √K      dq_id = Σ_j dS_ij k_jd / √K,   dk_jd = Σ_i dS_ij q_id / √K
    """
    dprobs = dc @ v.swapaxes(1, 2)  # (H, n, n)
    dscores = softmax_backward(dprobs, probs) * q.shape[-1] ** -0.5  # (H, n, n)
    return dscores @ k, dscores.swapaxes(1, 2) @ q, probs.swapaxes(1, 2) @ dc


def cross_entropy(logits: Array, targets: Array) -> tuple[float, int, Array]:
    """Σ -log(probability of the target): logits (N, C), targets (N,) -> sum, count, dlogits (N, C).

    E = log Z - s_t for target t, with Z = Σ_k exp(s_k). ∂(log Z)/∂s_j = exp(s_j)/Z = p_j, so
        ds_j = p_j - [j = t]
    what was said minus what is true. (Through softmax_backward, dp_t = -1/p_t would give the same, but for
    a p_t that is rounded to 0.) Rows whose target is IGNORED count for nothing.
    """
    asked = np.flatnonzero(targets != IGNORED)  # (count,)
    if not np.isin(targets[asked], np.arange(logits.shape[1])).all():
        raise DataError(f"a target is none of the classes 0 to {logits.shape[1] - 1}")
    shifted = logits[asked] - logits[asked].max(-1, keepdims=True)  # (count, C)
    log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))  # (count, C)
    dlogits = np.zeros_like(logits)  # (N, C)
    dlogits[asked] = np.exp(log_probs)
    dlogits[asked, targets[asked]] -= 1
    return float(-log_probs[np.arange(len(asked)), targets[asked]].sum()), len(asked), dlogits


def squared_error(values: Array, targets: Array) -> tuple[float, int, Array]:
    """Σ (y - t)²: values y and targets t (B,) -> sum, count, dvalues (B,) = 2 (y - t), as (u²)' = 2 u u'."""
    off = values - targets.astype(values.dtype)  # (B,)
    return float((off * off).sum()), len(off), 2 * off
