"""Write tests/golden/FAMILY.safetensors: the reference's answers for every head of a tiny model (see goldens.py).

Run at the top of the checkout, with the extra `peers`: python -m tests.reference.make_goldens [FAMILY ...]
Next to it test_goldens.py derives them again and compares, so that they can't rot.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from .. import goldens
from ..goldens import Golden
from ..questions import once, pair, question, without_dropout
from . import tiny

MOST_BYTES = 60_000


def heads_of(family: str) -> list[str]:
    """The heads the family publishes, none first."""
    return [head for name, head in tiny.PAIRS if name == family]


def derive(family: str, head: str) -> Golden:
    """What the reference answers, in float64, with the weights that belong to the names it saves."""
    with tempfile.TemporaryDirectory() as name, tiny.own_precision():
        folder = Path(name)
        tiny.save(family, head, folder)
        with safe_open(folder / "model.safetensors", "pt") as file:
            shapes = {n: file.get_slice(n).get_shape() for n in file.keys()}  # noqa: SIM118
        golden = Golden((folder / "config.json").read_text(encoding="utf-8"), shapes, {})
        model = tiny.read(family, head, goldens.write(folder, family, golden)).double()
        tensors = answers(model, head) | (learning(model, family, head, golden) if head else {})
    return golden._replace(tensors=tensors)


def answers(model: object, head: str) -> dict[str, Tensor]:
    """Hidden states and logits."""
    ids, segments = tiny.batch(model.config, goldens.lengths(head))
    with torch.no_grad():
        out = tiny.answers(model, head, ids, segments, output_hidden_states=True)
    packed = [torch.cat([row[: len(t)] for row, t in zip(h, ids)]) for h in out.hidden_states]
    found = {"hidden": goldens.features(packed)}
    logits = pair(tiny.logits_of(out, head, ids)) if head else ()
    return found | {n: goldens.columns(x) for n, x in zip(goldens.LOGITS, logits)}


def learning(model: object, family: str, head: str, golden: Golden) -> dict[str, Tensor]:
    """The loss in train mode, and what is kept of every parameter's gradient."""
    without_dropout(model.train())
    ids, segments = tiny.batch(model.config, goldens.lengths(head, loss=True))
    loss = tiny.answers(model, head, ids, segments, **question(family, head, ids)[1]).loss
    loss.backward()
    found = once(family, {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert sorted(found) == golden.learnt(family)
    rows = [goldens.digest(n, found[n]) for n in golden.learnt(family)]
    return {"loss": loss.detach(), "gradients": torch.stack(rows)}


def main(families: list[str]) -> None:
    """Write a file a family, and say how large it is."""
    goldens.FOLDER.mkdir(exist_ok=True)
    for family in families:
        path = goldens.FOLDER / f"{family}.safetensors"
        goldens.store(path, {head: derive(family, head) for head in heads_of(family)})
        size = path.stat().st_size
        print(f"{path.name}: {size:,} bytes")
        assert size < MOST_BYTES


if __name__ == "__main__":
    main(sys.argv[1:] or list(tiny.FAMILIES))
