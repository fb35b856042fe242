"""What the loop calls: a model with the texts it learns from, made ready on the host, then their loss.

In:  places of training texts.   Out: their summed loss, and its count.

It is a module, so that what wraps modules (DistributedDataParallel) can wrap it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from . import device
from .batch import PackedBatch
from .compiled import size
from .model import Model
from .tokenize import Encoded


class Learner(nn.Module):
    """A model, the encoded texts of the training part, and what is wanted of each.

    targets   (n,) or (n, C), or n lists of words' tags
    weights   (C,) of the labels, or None
    dtype     of autocast, or None
    sized     tokens of a micro-batch, whose packs are then filled to one of few sizes; 0: as long as they are
    """

    def __init__(
        self,
        model: Model,
        encoded: Encoded,
        targets: np.ndarray,
        weights: np.ndarray | None = None,
        dtype: torch.dtype | None = None,
        sized: int = 0,
    ):
        super().__init__()
        self.model, self.encoded, self.targets, self.dtype = model, encoded, targets, dtype
        self.number, self.sized = model.head.out.weight.dtype, sized
        shares = (
            torch.tensor(weights, device=model.device, dtype=self.number) if weights is not None else None
        )
        self.register_buffer("shares", shares, persistent=False)

    def prepare(self, places: list[int], key: tuple[int, int]) -> tuple[list[int], PackedBatch, Tensor]:
        """These texts packed, for the training step `key`, and what is wanted of them: all on the host."""
        wanted = self.targets[places]
        wanted = torch.tensor(
            np.concatenate(wanted) if wanted.dtype == object else wanted
        )  # of words: (words,)
        tokens = int(self.encoded.lengths[places].sum())
        batch = self.model.pack(
            self.encoded, places, key, fill_to=size(tokens, self.sized) if self.sized else None
        )
        return places, device.pinned(batch, self.model.device), device.pinned(wanted, self.model.device)

    def forward(self, places: list[int], batch: PackedBatch, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """What `prepare` made -> (summed loss, count)."""
        here = self.model.device
        wanted = wanted.to(device.exact(here)) if wanted.is_floating_point() else wanted
        wanted = wanted.to(here, non_blocking=True)
        with device.autocast(here, self.dtype):
            logits = self.model.logits(self.encoded, places, batch=batch)
        return self.model.head.loss(logits.to(self.number), wanted, self.shares)
