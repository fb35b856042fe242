"""What a masked-language head says: at each [MASK], and, read off earlier stages, what each layer would have said.

In:  a Model with such a head, a batch of one text, its trace.   Out: words with their probabilities, or None.

The second is the logit lens: the head was made for the last layer, so what it reads off an earlier one is a hint
of where an answer takes shape, no more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..batch import PackedBatch
from ..model import Model
from .outcome import masks_of, words_head

FILLS, SAID = 8, 3


@torch.inference_mode()
def fills(model: Model, batch: PackedBatch, hidden: Tensor) -> list[dict] | None:
    """For each [MASK] its place and the likeliest words."""
    head = words_head(model)
    if head is None:
        return None
    places = masks_of(model, batch)
    return [{"place": i, "top": best(model, head, hidden[[i]], batch, FILLS)[0]} for i in places]


@torch.inference_mode()
def lens(model: Model, batch: PackedBatch, found: Tensor) -> list[list] | None:
    """found (L + 1, N, D): for each stage and token the likeliest words."""
    head, last = words_head(model), model.encoder.final_norm
    if head is None:
        return None
    return [best(model, head, hidden if last is None else last(hidden), batch, SAID) for hidden in found]


def best(model: Model, head: torch.nn.Module, hidden: Tensor, batch: PackedBatch, most: int) -> list[list]:
    """The likeliest words of each row: [[piece, probability], ...]."""
    chances, ids = head.predict(head(hidden, batch.layout).float()).topk(most, -1)
    return [
        [[piece, float(chance)] for piece, chance in zip(model.tokenizer.tokens(row.tolist()), some)]
        for row, some in zip(ids, chances)
    ]
