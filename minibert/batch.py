"""A batch is one long list of tokens, and a Layout that says where each text begins and ends.

    three texts        [CLS] a b [SEP]   [CLS] c [SEP]   [CLS] d e f [SEP]
    the pack           [CLS] a b [SEP] [CLS] c [SEP] [CLS] d e f [SEP]          N = 12
    cu_seqlens         0               4             7                 12       (B+1,)
    positions          0     1 2 3     0     1 2     0     1 2 3 4              (N,)

There is no padding and no mask: what works on each token alone (all of an encoder but its
attention) never sees a text's end, and attention reads it in the layout.

One alphabet for the whole repo: B texts, N real tokens in the pack, T padded length, D hidden
width, H heads, K head width, F feed-forward width, L layers, V vocabulary, P positions, S segment
types, C classes.

In:  lists of token ids, one a text.   Out: PackedBatch.   Read next: kernels/reference.py.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from .errors import DataError


@dataclass(frozen=True)
class Layout:
    """Where the texts of a pack lie. Built once a batch; every layer reads the same one.

    cu_seqlens  (B+1,) int32 on the device: text i holds tokens cu_seqlens[i] to cu_seqlens[i+1]
    lengths     the same as numbers on the host, so that no kernel waits for the device
    max_seqlen  the longest text
    rows        (B,) int64: each text's row number in its table
    filler      tokens at the end that fill the pack up to a fixed N (0: none). They form one more
                run in cu_seqlens and lengths, which kernels compute and heads never read.
    key         (seed, step) of the training step this pack belongs to: dropout is made of it
    layer       which layer reads it just now, set by the encoder: dropout is made of it, too
    memo        what a kernel derives from the layout, kept for the next layer
    """

    cu_seqlens: Tensor
    lengths: tuple[int, ...]
    max_seqlen: int
    rows: Tensor
    filler: int = 0
    key: tuple[int, int] = (0, 0)
    layer: int = 0
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def num_texts(self) -> int:
        """B, without the filler."""
        return len(self.lengths) - (self.filler > 0)

    @property
    def starts(self) -> Tensor:
        """(B,) int64: the first token of each text."""
        return self.cu_seqlens[: self.num_texts].long()

    def keep(self, name: Any, make: Callable[[], Any]) -> Any:
        """What is derived from the layout: made at the first call, kept in `memo` for the next layer.

        Made outside inference mode, so that a batch that was predicted can be learnt from afterwards.
        """
        if name not in self.memo:
            with torch.inference_mode(False):
                self.memo[name] = make()
        return self.memo[name]

    @property
    def owner(self) -> Tensor:
        """(N - filler,) int64: which text each token belongs to, counted from 0."""

        def make() -> Tensor:
            lengths = self.lengths[: self.num_texts]
            counts = self.cu_seqlens.diff()[: self.num_texts]
            numbers = torch.arange(self.num_texts, device=self.cu_seqlens.device)
            return torch.repeat_interleave(numbers, counts, output_size=sum(lengths))

        return self.keep("owner", make)

    @property
    def cells(self) -> Tensor:
        """(N,) int64: each token's cell in the rectangle (B, T), counted row by row."""

        def make() -> Tensor:
            cells = [row * self.max_seqlen + i for row, n in enumerate(self.lengths) for i in range(n)]
            return torch.tensor(cells, dtype=torch.int64).to(self.cu_seqlens.device, non_blocking=True)

        return self.keep("cells", make)

    @property
    def positions(self) -> Tensor:
        """(N,) int64: each token's place in its text, from 0; the filler counts from 0, too."""

        def make() -> Tensor:
            places = torch.cat([torch.arange(n) for n in self.lengths] or [torch.arange(0)])
            return places.to(self.cu_seqlens.device, non_blocking=True)

        return self.keep("positions", make)

    def at(self, layer: int) -> Layout:
        """The same layout, memo and all, as this layer reads it."""
        return self if layer == self.layer else replace(self, layer=layer)

    def to(self, device: torch.device | str) -> Layout:
        """The same layout with its tensors on `device` and an empty memo."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in ("cu_seqlens", "rows")}
        return replace(self, **moved, memo={})

    def pin_memory(self) -> Layout:
        """The same layout where a card fetches it without the host waiting."""
        return replace(self, cu_seqlens=self.cu_seqlens.pin_memory(), rows=self.rows.pin_memory(), memo={})


TOKENS = ("token_ids", "positions", "segments")


@dataclass(frozen=True)
class PackedBatch:
    """The tokens of several texts, one after the other.

    token_ids  (N,) int64
    positions  (N,) int64, from 0 in every text (the Encoder adds config.position_offset)
    segments   (N,) int64: 0, and 1 in the second text of a pair
    layout     where each text lies
    largest    host numbers (token id, segment), so that a bad id is refused before any device sees it
    """

    token_ids: Tensor
    positions: Tensor
    segments: Tensor
    layout: Layout
    largest: tuple[int, int] = (0, 0)

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on `device`."""
        if self.token_ids.device == torch.device(device):
            return self
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in TOKENS}
        return replace(self, **moved, layout=self.layout.to(device))

    def pin_memory(self) -> PackedBatch:
        """The same batch where a card fetches it without the host waiting."""
        held = {name: getattr(self, name).pin_memory() for name in TOKENS}
        return replace(self, **held, layout=self.layout.pin_memory())

    def __len__(self) -> int:
        return self.layout.num_texts


def pack(
    ids: Sequence[Sequence[int]],
    segments: Sequence[Sequence[int]] | None = None,
    *,
    rows: Sequence[int] | None = None,
    fill_to: int | None = None,
    fill_id: int = 0,
    key: tuple[int, int] = (0, 0),
) -> PackedBatch:
    """Lists of token ids, one a text, to one PackedBatch on the CPU.

    `segments`: the same shape as ids, 0 where absent. `rows`: each text's row number, 0.. where
    absent. `fill_to`: end the pack in one filler text of `fill_id` so that it has exactly so many
    tokens. Raises DataError for a text without tokens, ids below 0 and lists that don't match.
    """
    lengths = [len(text) for text in ids]
    if 0 in lengths:
        raise DataError(f"text {lengths.index(0)} of the batch has no tokens")
    if segments is not None and [len(s) for s in segments] != lengths:
        raise DataError("segments must hold one number for each token id")
    if rows is not None and len(rows) != len(lengths):
        raise DataError(f"{len(rows)} row numbers for {len(lengths)} texts")
    filler = fill_to - sum(lengths) if fill_to is not None else 0
    if filler < 0:
        raise DataError(f"the texts have {sum(lengths)} tokens, more than fill_to = {fill_to}")
    real = len(lengths)
    if filler:
        lengths.append(filler)
    token_ids = whole_numbers([i for text in ids for i in text] + [fill_id] * filler)
    marks = [s for text in segments for s in text] + [0] * filler if segments is not None else []
    segment_ids = whole_numbers(marks) if marks else torch.zeros_like(token_ids)
    positions = [p for n in lengths[:real] for p in range(n)] + [0] * filler
    row_ids = torch.tensor(list(rows) if rows is not None else range(real), dtype=torch.int64)
    lowest = min(int(token_ids.min()), int(segment_ids.min())) if len(token_ids) else 0
    if lowest < 0:
        raise DataError(f"token ids and segments must be 0 or more, not {lowest}")
    return PackedBatch(
        token_ids,
        torch.tensor(positions, dtype=torch.int64),
        segment_ids,
        Layout(
            torch.tensor([0, *accumulate(lengths)], dtype=torch.int32),
            tuple(lengths),
            max(lengths, default=0),
            row_ids,
            filler,
            key,
        ),
        (int(token_ids.max()), int(segment_ids.max())) if len(token_ids) else (0, 0),
    )


def whole_numbers(values: list[int]) -> Tensor:
    """(N,) int64. torch alone would cut 1.5 down to 1 and say nothing."""
    try:
        return torch.tensor(array("q", values), dtype=torch.int64)
    except (TypeError, OverflowError):
        raise DataError("token ids and segments must be whole numbers") from None


def accumulate(lengths: Sequence[int]) -> list[int]:
    """Running sums: [4, 3, 5] -> [4, 7, 12]."""
    total, out = 0, []
    for n in lengths:
        total += n
        out.append(total)
    return out


def unpack(hidden: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """(N, ...) to one (length, ...) a text; the filler is left out."""
    return hidden.split(layout.lengths)[: layout.num_texts]


def pad(hidden: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """The rectangle that other BERTs use.

    (N, ...) to (B, T, ...) with zeros behind each text, and the mask (B, T), True on real tokens.
    """
    cells, shape = layout.cells, (len(layout.lengths), layout.max_seqlen)
    out = hidden.new_zeros(shape[0] * shape[1], *hidden.shape[1:])  # (B * T, ...)
    mask = torch.zeros(shape[0] * shape[1], dtype=torch.bool, device=hidden.device).index_fill(0, cells, True)
    return out.index_copy(0, cells, hidden).unflatten(0, shape), mask.unflatten(0, shape)


def unpad(rectangle: Tensor, layout: Layout) -> Tensor:
    """(B, T, ...) back to (N, ...): the inverse of `pad`."""
    return rectangle.flatten(0, 1).index_select(0, layout.cells)


def by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Split texts into groups of at most `budget` tokens (one longer text stands alone).

    A pure function of the lengths: texts are taken from short to long, ties in their order, so
    that texts of equal length meet. Returns lists of places in `lengths`.
    """
    groups: list[list[int]] = []
    room = 0
    for place in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if not groups or lengths[place] > room:
            groups.append([])
            room = budget
        groups[-1].append(place)
        room -= lengths[place]
    return groups


# Both are pytrees, so that torch.compile and torch.export look through them: tensors are leaves,
# host numbers are structure.
_pytree.register_pytree_node(
    Layout,
    lambda x: ([x.cu_seqlens, x.rows], (x.lengths, x.max_seqlen, x.filler, x.key, x.layer)),
    lambda leaves, fixed: Layout(leaves[0], *fixed[:2], leaves[1], *fixed[2:]),
    serialized_type_name="minibert.Layout",
)
_pytree.register_pytree_node(
    PackedBatch,
    lambda x: ([x.token_ids, x.positions, x.segments, x.layout], x.largest),
    lambda leaves, fixed: PackedBatch(*leaves, largest=fixed),
    serialized_type_name="minibert.PackedBatch",
)
