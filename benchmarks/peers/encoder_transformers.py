"""transformers' own encoder, with its textbook attention and with torch's: in batches of 32 as people run it, and sorted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from serving import Contestant, Job, Read, one_by_one, serve
from transformers import AutoModel


def with_attention(word: str) -> Callable[[Job], list[tuple[Read, dict[str, Any]]]]:
    """The model with this attention."""

    def make(job: Job) -> list[tuple[Read, dict[str, Any]]]:
        torch.set_num_threads(job.threads)
        model = AutoModel.from_pretrained(job.weights, attn_implementation=word, dtype=torch.float32).eval()

        def read(places: list[int]) -> Any:
            ids, mask = map(torch.from_numpy, job.padded(places))
            with torch.inference_mode():
                return model(input_ids=ids, attention_mask=mask).last_hidden_state.numpy()

        return [(one_by_one(read), {"transformers": transformers.__version__, "attn_implementation": word})]

    return make


if __name__ == "__main__":
    serve(
        [
            Contestant(
                f"transformers {word}, {how}",
                f"AutoModel, {about}",
                with_attention(word),
                ordered=ordered,
                size=size,
            )
            for word in ("eager", "sdpa")
            for how, about, ordered, size in (
                ("unsorted", "batches of 32 as they come", False, 32),
                ("sorted", "texts of like length together", True, None),
            )
        ]
    )
