"""What triton.py runs on the card: one program takes a tile of one text's tokens, in one head.

    forward           a tile of queries walks along the keys        -> out, lse
    backward_queries  a tile of queries walks along the keys        -> dq, delta, words
    backward_keys     a tile of keys walks along the queries        -> dk, dv

Softmax runs along as in tiled.py, in powers of two: `factor` is scale * log2(e), and lse is the base-2
logarithm of each query's sum. The mask of dropout is counter.py's. Each number is written by one program, in
one order, so that a step repeated gives the same bits.

In:  q, k, v (N, H, K), last axis contiguous.
Out: (N, H, K); lse, delta (H, N) float32; words (2, H, N) int32, what a query draws its mask from.

Imported by triton.py when it first runs, since it needs the package triton.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Triton's interpreter takes bfloat16's bits for a whole number's: there everything is float32 once loaded.
WIDEN = tl.constexpr(triton.knobs.runtime.interpret)
# The score of a key that isn't seen, and what a query's largest score is before it has seen any. The latter is
# no -inf: in a block of which a query sees nothing, -inf less -inf would be no number.
UNSEEN, LEAST = tl.constexpr(float("-inf")), tl.constexpr(-1.0e30)
# Numbers that change with the batch, the step and the layer: Triton would compile anew for some of them.
CHANGING = ["tokens", "word_a", "word_b", "word_c", "word_d", "limit", "left", "right"]


@triton.jit
def place(tiles):
    """Which tile this program takes: its text's first token and length, its own first token in it, its text."""
    at = tiles + 4 * tl.program_id(0)
    return tl.load(at).to(tl.int64), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)


@triton.jit
def begun(x, start, head, to_token, to_head):
    """Where a head of a text begins."""
    return x + start * to_token + head * to_head


@triton.jit
def rectangle(x, token, places, length, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, ENDS: tl.constexpr):
    """(places, COLUMNS) of one head of one text: 0 behind a head's width and, if ENDS, behind the text's end."""
    columns = tl.arange(0, COLUMNS)
    at = x + places[:, None] * token + columns[None, :]
    if ENDS or WIDTH != COLUMNS:
        found = tl.load(at, mask=(places < length)[:, None] & (columns < WIDTH)[None, :], other=0.0)
    else:
        found = tl.load(at)
    if WIDEN:
        found = found.to(tl.float32)
    return found


@triton.jit
def write(x, value, token, places, length, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """The inverse: what lies behind the text's end or the head's width is not written."""
    columns = tl.arange(0, COLUMNS)
    inside = (places < length)[:, None] & (columns < WIDTH)[None, :]
    tl.store(x + places[:, None] * token + columns[None, :], value.to(x.dtype.element_ty), mask=inside)


@triton.jit
def text_words(rows, text, word_a, word_b, word_c, word_d):
    """The second of counter.py's three lines: the text's key (64 bits), and two words."""
    row = tl.load(rows + text)
    key = joined(word_a.to(tl.uint32, bitcast=True), word_b.to(tl.uint32, bitcast=True))
    a, b, c, d = tl.philox(key, row.to(tl.uint32), (row >> 32).to(tl.uint32), word_c, word_d)
    return joined(a, b), c, d


@triton.jit
def query_words(text_key, text_c, text_d, queries):
    """The third: words a and b of these queries in this head, as counter.query_keys has them."""
    a, b, c, d = tl.philox(text_key, queries, tl.program_id(1), text_c, text_d)
    return a, b


@triton.jit
def joined(low, high):
    """Two words as one number of 64 bits, which Triton's philox takes for its key."""
    return low.to(tl.uint64) | (high.to(tl.uint64) << 32)


@triton.jit
def dropped(a, b, keys, limit):
    """counter.dropped: words of shape (queries, 1) and keys (1, keys), or the other way round."""
    x = tl.add(a, tl.mul(keys.to(tl.uint32), 0x9E3779B9, sanitize_overflow=False), sanitize_overflow=False)
    x ^= x >> 16
    x = tl.mul(x, 0x21F0AAAD, sanitize_overflow=False)
    x ^= x >> 15
    x ^= b
    x = tl.mul(x, 0xD35A2D97, sanitize_overflow=False)
    x ^= x >> 15
    return x.to(tl.int32, bitcast=True) < limit


@triton.jit
def seen(queries, keys, length, left, right, WINDOW: tl.constexpr):
    """Which keys each query looks at: those of its text, and with a window those near it."""
    there = keys < length
    if WINDOW:
        there = there & (keys >= queries - left) & (keys <= queries + right)
    return there


@triton.jit
def reach(first, length, left, right, TILE: tl.constexpr, STEP: tl.constexpr, WINDOW: tl.constexpr):
    """From where to where a tile walks: the first token, the end of the last whole step, the end."""
    begin, end = 0, length
    if WINDOW:
        begin = tl.maximum(first - left, 0) // STEP * STEP
        end = tl.minimum(first + TILE + right, length)
    return begin, begin + (end - begin) // STEP * STEP, end


@triton.jit
def look(
    q, k, v, most, total, sums, queries, keys, length, k_token, v_token, factor, a, b, limit, left, right,
    DROPOUT: tl.constexpr, WINDOW: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr, ENDS: tl.constexpr,
):  # fmt: skip
    """One step of the forward pass: what a tile of queries sums up over a block of keys."""
    k_b = rectangle(k, k_token, keys, length, WIDTH, COLUMNS, ENDS)
    scores = tl.dot(q, tl.trans(k_b), input_precision=PRECISION)
    if ENDS or WINDOW:
        scores = tl.where(seen(queries[:, None], keys[None, :], length, left, right, WINDOW), scores, UNSEEN)
    larger = tl.maximum(most, tl.max(scores, 1) * factor)  # factor is positive
    probs = tl.exp2(scores * factor - larger[:, None])
    shrink = tl.exp2(most - larger)
    total = total * shrink + tl.sum(probs, 1)
    if DROPOUT:
        probs = tl.where(dropped(a[:, None], b[:, None], keys[None, :], limit), 0.0, probs)
    v_b = rectangle(v, v_token, keys, length, WIDTH, COLUMNS, ENDS)
    sums = tl.dot(probs.to(v_b.dtype), v_b, sums * shrink[:, None], input_precision=PRECISION)
    return larger, total, sums


@triton.jit(do_not_specialize=CHANGING)
def forward(
    q, k, v, out, lse, tiles, rows, word_a, word_b, word_c, word_d,
    q_token, q_head, k_token, k_head, v_token, v_head, tokens, factor, kept, limit, left, right,
    DROPOUT: tl.constexpr, WINDOW: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of a tile of queries. kept: 1 - p, and 1 without dropout."""
    start, length, first, text = place(tiles)
    head, made = tl.program_id(1), tl.num_programs(1) * WIDTH  # `made`: from token to token of what is made
    q = begun(q, start, head, q_token, q_head)
    k = begun(k, start, head, k_token, k_head)
    v = begun(v, start, head, v_token, v_head)
    queries = first + tl.arange(0, TILE)
    q_t = rectangle(q, q_token, queries, length, WIDTH, COLUMNS, True)
    a, b = queries, queries  # not read without dropout
    if DROPOUT:
        text_key, text_c, text_d = text_words(rows, text, word_a, word_b, word_c, word_d)
        a, b = query_words(text_key, text_c, text_d, queries)
    most = tl.full((TILE,), LEAST, tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    sums = tl.zeros((TILE, COLUMNS), tl.float32)
    begin, whole, end = reach(first, length, left, right, TILE, STEP, WINDOW)
    for at in range(begin, whole, STEP):
        most, total, sums = look(
            q_t, k, v, most, total, sums, queries, at + tl.arange(0, STEP), length, k_token, v_token, factor,
            a, b, limit, left, right, DROPOUT, WINDOW, WIDTH, COLUMNS, PRECISION, False,
        )  # fmt: skip
    if whole < end:
        most, total, sums = look(
            q_t, k, v, most, total, sums, queries, whole + tl.arange(0, STEP), length, k_token, v_token, factor,
            a, b, limit, left, right, DROPOUT, WINDOW, WIDTH, COLUMNS, PRECISION, True,
        )  # fmt: skip
    out += start * made + head * WIDTH
    write(out, sums / (total * kept)[:, None], made, queries, length, WIDTH, COLUMNS)
    tl.store(lse + head * tokens + start + queries, most + tl.log2(total), mask=queries < length)


@triton.jit
def look_back(
    q, k, v, grad, dq, lse, delta, queries, keys, length, k_token, v_token, factor, a, b, limit, left, right,
    DROPOUT: tl.constexpr, WINDOW: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr, ENDS: tl.constexpr,
):  # fmt: skip
    """One step of backward_queries: what a block of keys adds to the gradient of a tile of queries."""
    k_b = rectangle(k, k_token, keys, length, WIDTH, COLUMNS, ENDS)
    v_b = rectangle(v, v_token, keys, length, WIDTH, COLUMNS, ENDS)
    probs = tl.exp2(tl.dot(q, tl.trans(k_b), input_precision=PRECISION) * factor - lse[:, None])
    if ENDS or WINDOW:
        probs = tl.where(seen(queries[:, None], keys[None, :], length, left, right, WINDOW), probs, 0.0)
    dprobs = tl.dot(grad, tl.trans(v_b), input_precision=PRECISION)
    if DROPOUT:
        dprobs = tl.where(dropped(a[:, None], b[:, None], keys[None, :], limit), 0.0, dprobs)
    dscores = probs * (dprobs - delta[:, None])
    return tl.dot(dscores.to(k_b.dtype), k_b, dq, input_precision=PRECISION)


@triton.jit(do_not_specialize=CHANGING)
def backward_queries(
    q, k, v, out, grad, lse, delta, words, dq, tiles, rows, word_a, word_b, word_c, word_d,
    q_token, q_head, k_token, k_head, v_token, v_head, tokens, factor, scale, kept, limit, left, right,
    DROPOUT: tl.constexpr, WINDOW: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """dq of a tile of queries; and delta and words, which backward_keys reads.

    The sum over the keys of p * dp is out * grad: softmax's backward needs no second pass. All of dprobs is to
    be divided by `kept`: delta is multiplied by it instead, and the sums are divided in the end.
    """
    start, length, first, text = place(tiles)
    head, made = tl.program_id(1), tl.num_programs(1) * WIDTH
    q = begun(q, start, head, q_token, q_head)
    k = begun(k, start, head, k_token, k_head)
    v = begun(v, start, head, v_token, v_head)
    shift, log = start * made + head * WIDTH, head * tokens + start
    second = log + tl.num_programs(1) * tokens
    queries = first + tl.arange(0, TILE)
    q_t = rectangle(q, q_token, queries, length, WIDTH, COLUMNS, True)
    grad_t = rectangle(grad + shift, made, queries, length, WIDTH, COLUMNS, True)
    out_t = rectangle(out + shift, made, queries, length, WIDTH, COLUMNS, True)
    delta_t = tl.sum(out_t.to(tl.float32) * grad_t.to(tl.float32), 1) * kept
    tl.store(delta + log + queries, delta_t, mask=queries < length)
    lse_t = tl.load(lse + log + queries, mask=queries < length, other=float("inf"))
    a, b = queries, queries
    if DROPOUT:
        text_key, text_c, text_d = text_words(rows, text, word_a, word_b, word_c, word_d)
        a, b = query_words(text_key, text_c, text_d, queries)
        # A tile of keys meets every query: to draw these words again would cost it more than all else it does.
        tl.store(words + log + queries, a.to(tl.int32, bitcast=True), mask=queries < length)
        tl.store(words + second + queries, b.to(tl.int32, bitcast=True), mask=queries < length)
    dq_t = tl.zeros((TILE, COLUMNS), tl.float32)
    begin, whole, end = reach(first, length, left, right, TILE, STEP, WINDOW)
    for at in range(begin, whole, STEP):
        dq_t = look_back(
            q_t, k, v, grad_t, dq_t, lse_t, delta_t, queries, at + tl.arange(0, STEP), length, k_token, v_token,
            factor, a, b, limit, left, right, DROPOUT, WINDOW, WIDTH, COLUMNS, PRECISION, False,
        )  # fmt: skip
    if whole < end:
        dq_t = look_back(
            q_t, k, v, grad_t, dq_t, lse_t, delta_t, queries, whole + tl.arange(0, STEP), length, k_token, v_token,
            factor, a, b, limit, left, right, DROPOUT, WINDOW, WIDTH, COLUMNS, PRECISION, True,
        )  # fmt: skip
    write(dq + shift, dq_t * (scale / kept), made, queries, length, WIDTH, COLUMNS)


@triton.jit(do_not_specialize=CHANGING)
def backward_keys(
    q, k, v, grad, lse, delta, words, dk, dv, tiles,
    q_token, q_head, k_token, k_head, v_token, v_head, tokens, factor, scale, kept, limit, left, right,
    DROPOUT: tl.constexpr, WINDOW: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """dk and dv of a tile of keys. Scores stand turned, (keys, queries), so that no product turns a result."""
    start, length, first, _ = place(tiles)
    head, made = tl.program_id(1), tl.num_programs(1) * WIDTH
    q = begun(q, start, head, q_token, q_head)
    k = begun(k, start, head, k_token, k_head)
    v = begun(v, start, head, v_token, v_head)
    shift, log = start * made + head * WIDTH, head * tokens + start
    second = log + tl.num_programs(1) * tokens
    keys = first + tl.arange(0, TILE)
    k_t = rectangle(k, k_token, keys, length, WIDTH, COLUMNS, True)
    v_t = rectangle(v, v_token, keys, length, WIDTH, COLUMNS, True)
    dk_t = tl.zeros((TILE, COLUMNS), tl.float32)
    dv_t = tl.zeros((TILE, COLUMNS), tl.float32)
    begin, _, end = reach(
        first, length, right, left, TILE, STEP, WINDOW
    )  # who looks left stands to the right
    for at in range(begin, end, STEP):
        queries = at + tl.arange(0, STEP)
        q_b = rectangle(q, q_token, queries, length, WIDTH, COLUMNS, True)
        grad_b = rectangle(grad + shift, made, queries, length, WIDTH, COLUMNS, True)
        # Queries behind the end: a sum of inf makes their probabilities 0.
        lse_b = tl.load(lse + log + queries, mask=queries < length, other=float("inf"))
        delta_b = tl.load(delta + log + queries, mask=queries < length, other=0.0)
        probs = tl.exp2(tl.dot(k_t, tl.trans(q_b), input_precision=PRECISION) * factor - lse_b[None, :])
        if WINDOW:
            probs = tl.where(seen(queries[None, :], keys[:, None], length, left, right, WINDOW), probs, 0.0)
        left_over, dprobs = probs, tl.dot(v_t, tl.trans(grad_b), input_precision=PRECISION)
        if DROPOUT:
            a = tl.load(words + log + queries, mask=queries < length, other=0).to(tl.uint32, bitcast=True)
            b = tl.load(words + second + queries, mask=queries < length, other=0).to(tl.uint32, bitcast=True)
            gone = dropped(a[None, :], b[None, :], keys[:, None], limit)
            left_over, dprobs = tl.where(gone, 0.0, probs), tl.where(gone, 0.0, dprobs)
        dv_t = tl.dot(left_over.to(grad_b.dtype), grad_b, dv_t, input_precision=PRECISION)
        dscores = probs * (dprobs - delta_b[None, :])
        dk_t = tl.dot(dscores.to(q_b.dtype), q_b, dk_t, input_precision=PRECISION)
    write(dk + shift, dk_t * (scale / kept), made, keys, length, WIDTH, COLUMNS)
    write(dv + shift, dv_t / kept, made, keys, length, WIDTH, COLUMNS)
