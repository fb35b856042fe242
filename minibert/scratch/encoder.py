"""The encoder: embeddings and L blocks, forward, and backward in the opposite order.

In:  Pack, texts as one list of N tokens.   Out: a trace, every intermediate result by name; the last is (N, D).

The trace is all that the backward pass needs: each derivative is made of dy and of what the forward pass saw at
the same place. Each backward stands below its forward; hold its first line against the forward's last.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..config import EncoderConfig
from ..errors import DataError
from . import layers as op
from .layers import Array, Parameters

Trace = dict[str, Array | tuple[Array, ...]]
TABLES = ("word", "position", "segment")
QKV = ("query", "key", "value")
REST = ("scores", "probs", "context", "attn_out", "attn_normed", "ffn_up", "ffn_act", "ffn_out", "ffn_normed")


class Pack(NamedTuple):
    """Several texts, one after the other: the row of each table that a token takes (N,)."""

    word: Array
    position: Array
    segment: Array
    starts: Array  # (B,): the first token of each text

    def split(self, x: Array) -> list[Array]:
        """(N, H, K) -> (H, n, K) of each text. Because texts are cut apart here, attention needs no mask."""
        return [part.swapaxes(0, 1) for part in np.split(x, self.starts[1:])]


def pack(ids: Sequence[Sequence[int]], segments: Sequence[Sequence[int]] | None = None) -> Pack:
    """Lists of token ids, one a text, to a Pack. `segments`: of the same shape, 0 where absent."""
    lengths = tuple(map(len, ids))
    marks = [[0] * n for n in lengths] if segments is None else segments
    if not lengths or 0 in lengths or lengths != tuple(map(len, marks)):
        raise DataError("a pack needs texts of one token or more, and a segment number for each token")
    rows = (ids, map(range, lengths), marks)
    word, position, segment = (np.concatenate([np.array(text, np.int64) for text in x]) for x in rows)
    return Pack(word, position, segment, np.cumsum([0, *lengths[:-1]]))


def forward(p: Parameters, config: EncoderConfig, pack: Pack) -> Trace:
    """Every intermediate result, in the order of computation, under the names of minibert/trace.py."""
    tables = [f"embeddings.{name}" for name in TABLES]
    trace = {name: op.embedding(p, name, ids) for name, ids in zip(tables, pack)}
    trace["embeddings.sum"] = sum(trace.values())  # (N, D)
    trace["embeddings.normed"] = op.layer_norm(p, "embeddings.norm", trace["embeddings.sum"], config.norm_eps)
    for i in range(config.num_layers):
        found = block(p, config, pack, f"layers.{i}", before(trace, i))
        trace |= {f"layers.{i}.{name}": found[name] for name in QKV + REST}
    return trace


def backward(p: Parameters, config: EncoderConfig, pack: Pack, trace: Trace, dhidden: Array) -> None:
    """dhidden (N, D), of the last block's output: notes the gradient of every parameter."""
    for i in reversed(range(config.num_layers)):
        seen = {name: trace[f"layers.{i}.{name}"] for name in QKV + REST}
        dhidden = block_backward(p, config, pack, f"layers.{i}", before(trace, i), seen, dhidden)
    dsum = op.layer_norm_backward(p, "embeddings.norm", dhidden, trace["embeddings.sum"], config.norm_eps)
    for name, ids in zip(TABLES, pack):  # of a sum, each of the three gets dsum as it is
        op.embedding_backward(p, f"embeddings.{name}", dsum, ids)


def before(trace: Trace, i: int) -> Array:
    """What block i is given, (N, D): the embeddings, or the output of the block before."""
    return trace[f"layers.{i - 1}.ffn_normed" if i else "embeddings.normed"]


def block(p: Parameters, config: EncoderConfig, pack: Pack, at: str, hidden: Array) -> Trace:
    """Self-attention, then feed-forward, each added to what came in and normalised. hidden (N, D)."""
    t: Trace = {}
    for x in QKV:
        t[x] = op.linear(p, f"{at}.attn.{x}", hidden).reshape(len(hidden), config.num_heads, -1)  # (N, H, K)
    looks = [op.attention(*text) for text in zip(*(pack.split(t[x]) for x in QKV))]
    t["scores"], t["probs"], contexts = zip(*looks)  # each a tuple, by text
    t["context"] = np.concatenate([c.swapaxes(0, 1) for c in contexts])  # (N, H, K)
    t["attn_out"] = op.linear(p, f"{at}.attn.out", t["context"].reshape(hidden.shape))  # (N, D)
    t["attn_normed"] = op.layer_norm(p, f"{at}.attn_norm", hidden + t["attn_out"], config.norm_eps)  # (N, D)
    t["ffn_up"] = op.linear(p, f"{at}.ffn.up", t["attn_normed"])  # (N, F)
    t["ffn_act"] = op.gelu(t["ffn_up"])  # (N, F)
    t["ffn_out"] = op.linear(p, f"{at}.ffn.down", t["ffn_act"])  # (N, D)
    t["ffn_normed"] = op.layer_norm(p, f"{at}.ffn_norm", t["attn_normed"] + t["ffn_out"], config.norm_eps)
    return t


def block_backward(
    p: Parameters, config: EncoderConfig, pack: Pack, at: str, hidden: Array, t: Trace, dy: Array
) -> Array:
    """dy (N, D), of ffn_normed -> dhidden (N, D).

    A residual y = x + f(x) uses x twice: dx is dy as it is, plus what comes back through f. That "dy as it is"
    is why gradients reach the lowest block: past every sub-layer there is a way down.
    """
    dsum = op.layer_norm_backward(p, f"{at}.ffn_norm", dy, t["attn_normed"] + t["ffn_out"], config.norm_eps)
    dact = op.linear_backward(p, f"{at}.ffn.down", dsum, t["ffn_act"])  # (N, F)
    dup = op.gelu_backward(dact, t["ffn_up"])  # (N, F)
    dnormed = dsum + op.linear_backward(p, f"{at}.ffn.up", dup, t["attn_normed"])  # (N, D)
    dsum = op.layer_norm_backward(p, f"{at}.attn_norm", dnormed, hidden + t["attn_out"], config.norm_eps)
    dcontext = op.linear_backward(p, f"{at}.attn.out", dsum, t["context"].reshape(hidden.shape))  # (N, D)
    cut = [pack.split(x) for x in (dcontext.reshape(t["context"].shape), *(t[x] for x in QKV))]
    parts = [op.attention_backward(*text) for text in zip(*cut, t["probs"])]  # dq, dk, dv of each text
    dhidden = dsum
    for x, texts in zip(QKV, zip(*parts)):  # hidden went into all three and the residual: a sum of four
        dx = np.concatenate([d.swapaxes(0, 1) for d in texts]).reshape(hidden.shape)  # (N, D)
        dhidden = dhidden + op.linear_backward(p, f"{at}.attn.{x}", dx, hidden)
    return dhidden
