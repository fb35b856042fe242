"""Heads: from hidden states to an answer, and back.

In:  hidden (N, D), the pack.   Out: "logits" in the trace t, with what backward needs; backward: dhidden (N, D).
Loss is a sum and a count: the step divides, once.
"""

import numpy as np

from . import layers as op
from .encoder import Pack, Trace
from .layers import Array, Parameters


def read(p: Parameters, eps: float, pack: Pack, t: Trace, hidden: Array) -> None:
    """The first token, [CLS], through the pooler: pooled (B, D); logits (B, C), or (B,) of a single output."""
    t["pooled"] = np.tanh(op.linear(p, "read.dense", hidden[pack.starts]))  # (B, D)
    logits = op.linear(p, "out", t["pooled"])  # (B, C)
    t["logits"] = logits[:, 0] if logits.shape[1] == 1 else logits


def read_backward(p: Parameters, eps: float, pack: Pack, t: Trace, hidden: Array, dlogits: Array) -> Array:
    """dlogits (B, C) or (B,) -> dhidden (N, D): only first tokens were read, so only they get anything.

    The others get theirs in the last block's attention, where the first token looked at them.
    """
    dpooled = op.linear_backward(p, "out", dlogits.reshape(len(pack.starts), -1), t["pooled"])  # (B, D)
    dread = op.tanh_backward(dpooled, t["pooled"])  # (B, D)
    dhidden = np.zeros_like(hidden)  # (N, D)
    dhidden[pack.starts] = op.linear_backward(p, "read.dense", dread, hidden[pack.starts])
    return dhidden


def decode(p: Parameters, eps: float, pack: Pack, t: Trace, hidden: Array) -> None:
    """Which word stands at each token: norm(gelu(dense(hidden))) against each row of the word table, (N, V)."""
    t["read.dense"] = op.linear(p, "read.dense", hidden)  # (N, D)
    t["read.act"] = op.gelu(t["read.dense"])  # (N, D)
    t["read.normed"] = op.layer_norm(p, "read.norm", t["read.act"], eps)  # (N, D)
    t["logits"] = t["read.normed"] @ p["embeddings.word.weight"].T + p["out.bias"]  # (N, V)


def decode_backward(p: Parameters, eps: float, pack: Pack, t: Trace, hidden: Array, dlogits: Array) -> Array:
    """dlogits (N, V) -> dhidden (N, D).

    The decoder is tied: its weight is the word table W itself. E depends on W in two places, E(W_out, W_in) with
    both equal to W, so dW = dW_out + dW_in. The first, dlogits^T x as in linear_backward, is noted here under the
    table's name; the lookup at the bottom of the encoder adds its own.
    """
    p.grads["embeddings.word.weight"] += dlogits.T @ t["read.normed"]  # (V, D)
    p.grads["out.bias"] += dlogits.sum(0)  # (V,)
    dnormed = dlogits @ p["embeddings.word.weight"]  # (N, D)
    dact = op.layer_norm_backward(p, "read.norm", dnormed, t["read.act"], eps)  # (N, D)
    return op.linear_backward(p, "read.dense", op.gelu_backward(dact, t["read.dense"]), hidden)  # (N, D)


# kind -> forward, backward, and the loss: (sum, count, dlogits)
HEADS = {
    "classification": (read, read_backward, op.cross_entropy),
    "regression": (read, read_backward, op.squared_error),
    "mlm": (decode, decode_backward, op.cross_entropy),
}
