"""The reference's answers, stored: tests/golden/FAMILY.safetensors, read by the tests, written by
reference/make_goldens.py.

A file holds no weights: those are drawn from a frozen stream by each tensor's published name. It holds
float32 of a float64 computation:

    none.hidden      (L + 1, N, features)    every 5th feature of the embeddings and of every block
    shared.hidden    (L + 1, N, features)    the same under any head: there all names have a prefix
    HEAD.logits      in our shapes; of those over the vocabulary every 7th; HEAD.order beside it in pretraining
    HEAD.loss        ()                      in train mode without dropout
    HEAD.gradients   (parameters, 8)         what `digest` keeps, a row for each name of `Golden.learnt`

and in its metadata, as one JSON text, by head, config.json and the names and shapes of model.safetensors.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .questions import V, once

FOLDER = Path(__file__).parent / "golden"
LENGTHS = (5, 14, 2, 7)  # ragged; 14: beyond MPNet's exact distances and ModernBERT's windows
LEVEL = (7, 7, 7, 7)  # for the loss of spans, in whose softmax the reference lets padding take part
NONE, SHARED = "none", "shared"  # no head; what is alike under every head
LOGITS = ("logits", "order")
FEATURES, COLUMNS = 5, 7  # every so many are stored
PLACES = 5  # of a gradient


class Golden(NamedTuple):
    """What is stored of one family and head."""

    config: str  # the text of config.json
    shapes: dict[str, list[int]]  # of model.safetensors, by published names
    tensors: dict[str, Tensor]  # hidden, logits, order, loss, gradients

    def learnt(self, family: str) -> list[str]:
        """The names whose gradients are stored, in the order of their rows."""
        return sorted(once(family, self.shapes))


def stream(name: str, shape: list[int]) -> np.ndarray:
    """Standard normal numbers that belong to a name, for ever: NumPy froze RandomState's stream."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)


def weights(family: str, shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """A checkpoint's tensors by published names. Large enough that every part matters; norms lie around 1."""
    out = {}
    for name, shape in shapes.items():
        (first,) = once(family, {name: None})  # what is tied is equal
        middle = 1.0 if first.lower().endswith("norm.weight") else 0.0
        out[name] = torch.from_numpy(middle + 0.3 * stream(first, shape)).float()
    return out


def write(folder: Path, family: str, golden: Golden) -> Path:
    """config.json and model.safetensors of a golden."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(golden.config, encoding="utf-8")
    save_file(weights(family, golden.shapes), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def lengths(head: str, loss: bool = False) -> tuple[int, ...]:
    """Of the texts that are asked; `loss`: of those whose loss is stored."""
    return LEVEL if loss and head == "span" else LENGTHS


# --- what is kept of a tensor ---------------------------------------------------------------------


def features(hidden: list[Tensor]) -> Tensor:
    """L + 1 of (N, D) -> (L + 1, N, features)."""
    return torch.stack([h[:, ::FEATURES] for h in hidden])


def columns(logits: Tensor) -> Tensor:
    """Logits as stored: over the vocabulary only some."""
    return logits[:, ::COLUMNS] if logits.shape[-1] == V else logits


def digest(name: str, gradient: Tensor) -> Tensor:
    """(8,): the largest absolute value, the sum, the product with a random direction, some entries.

    Of these the product alone changes whatever is wrong, also where entries changed places. Its direction
    is not the weights' own, along which the gradient of what a norm follows is zero.
    """
    flat = gradient.double().flatten()
    random = torch.from_numpy(stream(f"gradient of {name}", [len(flat)]))
    places = [7919 * i % len(flat) for i in range(1, PLACES + 1)]  # a prime: in no row's rhythm
    return torch.stack([flat.abs().max(), flat.sum(), flat @ random, *flat[places]])


def share(found: Tensor, stored: Tensor, within: float) -> float:
    """The largest difference as a share of what is allowed: `within`, of a row's largest where that is over 1.

    Between ModernBERT's norms lie sums of dozens.
    """
    assert found.shape == stored.shape, (found.shape, stored.shape)
    rows = stored.double().abs()
    rows = rows.amax(-1, keepdim=True) if rows.ndim > 1 else rows
    return float(((found.double() - stored.double()).abs() / (within * rows.clamp(min=1))).max())


def gradient_shares(
    found: Tensor, golden: Golden, family: str, within: float, negligible: float
) -> dict[str, float]:
    """`share` of every gradient by name, of digests (parameters, 8).

    Allowed is `within` of a parameter's largest, or where that is `negligible` beside the model's largest,
    just so much. A sum of n gathers the rounding of n.
    """
    stored = golden.tensors["gradients"].double()
    sizes = once(family, golden.shapes)
    size, floor = stored[:, 0], negligible * stored[:, 0].max()
    allowed = torch.where(size < floor, floor, within * size)[:, None].repeat(1, 3 + PLACES)
    root = torch.tensor([math.prod(sizes[n]) for n in golden.learnt(family)]).double().sqrt()
    allowed[:, 1:3] *= root[:, None]
    shares = ((found - stored).abs() / allowed).amax(1).tolist()
    return dict(zip(golden.learnt(family), shares, strict=True))


# --- files ----------------------------------------------------------------------------------------


def store(path: Path, heads: dict[str, Golden]) -> None:
    """Write a family's file. What is the same under all heads is in it once: most names, the hidden states."""
    first, *others = (golden for head, golden in heads.items() if head)
    names = {n: s for n, s in first.shapes.items() if all(o.shapes.get(n) == s for o in others)}
    hidden = first.tensors["hidden"].float()
    assert all(torch.equal(hidden, o.tensors["hidden"].float()) for o in others)
    told, tensors = {SHARED: {"names": names}}, {f"{SHARED}.hidden": hidden}
    for head, golden in heads.items():
        own = {n: s for n, s in golden.shapes.items() if not head or n not in names}
        told[head or NONE] = {"config": json.loads(golden.config), "names": own}
        kept = {n: t for n, t in golden.tensors.items() if not head or n != "hidden"}
        tensors |= {f"{head or NONE}.{n}": t.float().contiguous() for n, t in kept.items()}
    # One text: several would stand in another order each time.
    save_file(tensors, path, metadata={"heads": json.dumps(told, separators=(",", ":"))})
    path.chmod(0o644)


def read(family: str) -> dict[str, Golden]:
    """Head -> what is stored of it."""
    with safe_open(FOLDER / f"{family}.safetensors", "pt") as file:
        told = json.loads(file.metadata()["heads"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict

    def part(key: str) -> dict[str, Tensor]:
        return {n.removeprefix(f"{key}."): t for n, t in tensors.items() if n.startswith(f"{key}.")}

    shared, out = told.pop(SHARED)["names"], {}
    for key, kept in told.items():
        alone = key == NONE
        names = kept["names"] if alone else shared | kept["names"]
        found = part(key) if alone else part(SHARED) | part(key)
        out["" if alone else key] = Golden(json.dumps(kept["config"]), names, found)
    return out
