"""sentence-transformers' `encode`, from texts to vectors: it tokenizes, sorts, pools and normalises by itself."""

from __future__ import annotations

from typing import Any

import sentence_transformers
import torch
from sentence_transformers import SentenceTransformer
from serving import Contestant, Job, Read, one_by_one, serve


def make(job: Job) -> list[tuple[Read, dict[str, Any]]]:
    """The model as it comes, cut where ours is."""
    torch.set_num_threads(job.threads)
    model = SentenceTransformer(job.weights, device="cpu")
    model.max_seq_length = job.max_tokens

    def read(places: list[int]) -> Any:
        return model.encode([job.texts[place] for place in places], batch_size=32, show_progress_bar=False)

    settings = {"batch_size": 32, "time includes": "tokenizing, pooling"}
    return [(one_by_one(read), {"sentence-transformers": sentence_transformers.__version__, **settings})]


if __name__ == "__main__":
    about = "encode(texts), its time with tokenizing"
    serve([Contestant("sentence-transformers", about, make, ordered=False, size=0)])
