"""The word table in training: the rows that some training text uses learn, the others only decay.

In:  the nn.Embedding of words (V, E), and the token ids that occur.   Out: WordRows in its place.

Half of a small encoder's numbers are rows of words that a task never meets. Their gradient is zero for
ever, so AdamW leaves them where they are but for weight decay; here neither the backward pass, nor clipping,
nor the optimizer reads them. Evaluation, saving and loading see the whole table, in its published order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WordRows(nn.Module):
    """One table, the used rows first: `used` (U, E) is a parameter, `idle` (V - U, E) the rest of its memory.

    In:  ids (N,)
    Out: (N, E)
    """

    def __init__(self, word: nn.Embedding, ids: Iterable[int]):
        super().__init__()
        here = word.weight.device
        first = torch.tensor(sorted(ids)).to(here)  # (U,)
        later = torch.ones(word.num_embeddings, dtype=torch.bool, device=here).index_fill(0, first, False)
        order = torch.cat([first, later.nonzero().flatten()])  # (V,) ids in the table's order
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("place", order.argsort(), persistent=False)  # (V,) where each id stands
        table = word.weight.detach().index_select(0, order)  # (V, E)
        self.register_buffer("table", table, persistent=False)
        self.used = nn.Parameter(table[: len(first)])  # of the table's memory

    @property
    def idle(self) -> Tensor:
        """(V - U, E): what never gets a gradient."""
        return self.table[len(self.used) :]

    @property
    def weight(self) -> Tensor:
        """(V, E) in the published order, a copy."""
        return self.table.index_select(0, self.place)

    def forward(self, ids: Tensor) -> Tensor:
        """(N,) -> (N, E). In training only the ids that it was made with."""
        return F.embedding(self.place.index_select(0, ids), self.used if self.training else self.table)

    def __deepcopy__(self, memo: dict[int, Any]) -> WordRows:
        """A copy whose parameter lies in its own table, too."""
        word = nn.Embedding(*self.table.shape, _weight=self.weight)
        return WordRows(word, self.order[: len(self.used)].tolist()).train(self.training)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.weight

    def _load_from_state_dict(
        self,
        state: dict[str, Any],
        prefix: str,
        facts: dict[str, Any],
        strict: bool,
        missing: list[str],
        *rest: Any,
    ) -> None:
        weight = state.get(f"{prefix}weight")
        if weight is None:
            missing.append(f"{prefix}weight")
            return
        with torch.no_grad():
            self.table.copy_(weight.index_select(0, self.order.to(weight.device)))


def set_apart(embeddings: nn.Module, ids: Iterable[int]) -> None:
    """Let an encoder's embeddings learn the words that occur, if they learn at all and not all occur."""
    word, ids = embeddings.word, set(ids)
    if isinstance(word, nn.Embedding) and word.weight.requires_grad and len(ids) < word.num_embeddings:
        embeddings.word = WordRows(word, ids)
