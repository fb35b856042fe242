"""The one file that may import transformers: the reference implementation's numbers, stage by stage.

In:  a checkpoint folder and lists of token ids.   Out: name -> list of (n, D) tensors, one a text.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .errors import EnvironmentProblem


def installed() -> bool:
    """Whether the reference implementation can be imported."""
    return importlib.util.find_spec("transformers") is not None


def stages(
    folder: Path | str,
    ids: Sequence[Sequence[int]],
    segments: Sequence[Sequence[int]] | None,
    pad_id: int,
    with_head: bool,
) -> dict[str, list[Tensor]]:
    """embeddings, layers.0 .. layers.L-1, pooled and logits where there are any; float32, eval mode.

    The texts go in as the padded rectangle that the reference takes; what comes out is cut to the
    real tokens, because padding's own numbers mean nothing.
    """
    if not installed():
        raise EnvironmentProblem(
            "transformers is not installed, so there is nothing to compare with",
            "pip install transformers",
        )
    import transformers

    kind = transformers.AutoModelForSequenceClassification if with_head else transformers.AutoModel
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        model = kind.from_pretrained(str(folder), attn_implementation="eager", dtype=torch.float32).eval()
    longest = max(map(len, ids))
    rectangle = torch.full((len(ids), longest), pad_id)
    mask = torch.zeros(len(ids), longest, dtype=torch.int64)
    kinds = torch.zeros(len(ids), longest, dtype=torch.int64)
    for i, text in enumerate(ids):
        rectangle[i, : len(text)] = torch.tensor(text)
        mask[i, : len(text)] = 1
        if segments is not None:
            kinds[i, : len(text)] = torch.tensor(segments[i])
    pooled: list[Tensor] = []
    if with_head:  # what its last layer reads, which it does not give by itself
        last = getattr(model.classifier, "out_proj", model.classifier)
        last.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    with torch.no_grad():
        out = model(input_ids=rectangle, attention_mask=mask, token_type_ids=kinds, output_hidden_states=True)
    found = {
        "embeddings" if i == 0 else f"layers.{i - 1}": [h[t, : len(text)] for t, text in enumerate(ids)]
        for i, h in enumerate(out.hidden_states)
    }
    if getattr(out, "pooler_output", None) is not None:
        pooled.append(out.pooler_output)
    if pooled:
        found["pooled"] = [row[None] for row in pooled[0]]
    if getattr(out, "logits", None) is not None:
        found["logits"] = [row[None] for row in out.logits]
    return found
