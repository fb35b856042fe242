"""Which attention probabilities are dropped, as a pure function of where they stand.

    (seed, step, layer, the text's row number, head, query, key)  ->  dropped or kept

So a text loses the same looks in any pack, micro-batch and process, and the backward pass draws
the mask again instead of keeping it. All is 32-bit arithmetic without signs, alike in every language:

    a1, b1, c1, d1 = philox((seed low, seed high, step low, step high), (layer, 0))
    a2, b2, c2, d2 = philox((row low, row high, c1, d1), (a1, b1))
    a, b, _, _     = philox((query, head, c2, d2), (a2, b2))
    x = a + key * 0x9E3779B9;  x ^= x >> 16;  x *= 0x21F0AAAD;  x ^= x >> 15
    x ^= b;                                   x *= 0xD35A2D97;  x ^= x >> 15
    dropped where x, read as a signed number, is below round(p * 2^32) - 2^31

Windows of one text have its row number, so they lose the same looks at the same positions.
Numbers of 64 bits (seed, step, row) are cut into a low and a high half, negative ones in two's
complement. `philox` is Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1,
2, 3"), as in Random123, cuRAND and Triton: strong, and its cost is paid once a query, not once a key.
Along the keys runs a hash of two multiplications, keyed by 64 bits, with the multipliers that
Wellons' hash-prospector found (bias 0.107 of 1): a tenth of Philox's cost for each draw.

In:  a Dropout, row numbers (B,).   Out: masks (H, n, n), or any block of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..batch import Layout
from . import Dropout

M32 = 0xFFFFFFFF
FILLER = -1  # the row number of the filler text, which has none

Words = Sequence[Tensor | int]  # 32-bit words, each a number or an int64 tensor


def philox(counter: Words, key: Words) -> tuple[Tensor | int, ...]:
    """Philox-4x32-10: four words and a key of two give four words, each as good as random."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        # int64 wraps where a product needs 64 bits; its halves are right once the sign is masked off
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) & M32 ^ c1 ^ k0, p1 & M32, (p0 >> 32) & M32 ^ c3 ^ k1, p0 & M32
        k0, k1 = (k0 + 0x9E3779B9) & M32, (k1 + 0xBB67AE85) & M32
    return c0, c1, c2, c3


def halves(number: Tensor | int) -> tuple[Tensor | int, Tensor | int]:
    """A number of 64 bits as (low, high) 32."""
    return number & M32, (number >> 32) & M32


def rows_of(layout: Layout) -> Tensor:
    """(B,) int64: the row number of each text, the filler's too."""
    if not layout.filler:
        return layout.rows
    return torch.cat([layout.rows, layout.rows.new_full((1,), FILLER)])


def query_keys(layout: Layout, heads: int, dropout: Dropout) -> Tensor:
    """(2, N, H) int32: the words a and b of every query in every head."""
    seed, step, layer = dropout.key
    a, b, c, d = philox((*halves(seed), *halves(step)), (layer & M32, 0))
    texts = torch.stack(philox((*halves(rows_of(layout)), c, d), (a, b)))  # (4, B)
    owned = texts.repeat_interleave(
        layout.cu_seqlens.diff(), dim=1, output_size=sum(layout.lengths)
    )  # (4, N)
    a, b, c, d = owned[:, :, None]  # each (N, 1)
    head = torch.arange(heads, device=texts.device)  # (H,)
    return signed(torch.stack(philox((layout.positions[:, None], head, c, d), (a, b))[:2]))  # (2, N, H)


def signed(words: Tensor) -> Tensor:
    """int64 from 0 to 2^32 - 1 as the int32 of the same bits: half the memory, and it wraps by itself."""
    return (words - ((words >> 31) << 32)).int()


def dropped(queries: Tensor, first: int, last: int, p: float) -> Tensor:
    """(2, ...) -> (..., last - first) bool: for each query, which of the keys first..last are dropped."""
    weyl = torch.arange(first, last, device=queries.device) * 0x9E3779B9 & M32
    x = queries[0, ..., None] + signed(weyl)  # (..., keys)
    spare = torch.empty_like(x)

    def fold(shift: int) -> None:  # x ^= x >> shift; >> copies the sign, which is cut off
        x.bitwise_xor_(torch.bitwise_right_shift(x, shift, out=spare).bitwise_and_(2 ** (32 - shift) - 1))

    fold(16)
    x *= 0x21F0AAAD
    fold(15)
    x ^= queries[1, ..., None]
    x *= 0xD35A2D97 - 2**32
    fold(15)
    return x < threshold(p)


def threshold(p: float) -> int:
    """Signed draws below it are dropped: a share of p, to 2^-32."""
    return min(round(p * 2**32), 2**32 - 1) - 2**31


def drop_hidden(x: Tensor, layout: Layout, dropout: Dropout) -> Tensor:
    """(N, D) -> (N, D): each number scaled or 0. A token draws as a query of head 0 would, its columns as keys."""
    queries = query_keys(layout, 1, dropout)[:, :, 0]  # (2, N)
    return (x * (1 / (1 - dropout.p))).masked_fill(dropped(queries, 0, x.shape[1], dropout.p), 0.0)


def masks(layout: Layout, heads: int, dropout: Dropout) -> list[Tensor]:
    """For each text (H, n, n) float64: 0 where dropped, else 1 / (1 - p)."""
    texts = query_keys(layout, heads, dropout).mT.split(layout.lengths, dim=2)  # each (2, H, n)
    return [(~dropped(x, 0, x.shape[2], dropout.p)).double() / (1 - dropout.p) for x in texts]
