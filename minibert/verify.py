"""`minibert verify`: our forward pass held against the reference, stage by stage.

In:  a checkpoint.   Out: Ladder, the largest difference at the embeddings, each block, pooler, logits.

Compared is with transformers where it is installed, else with the tensors in weights/reference/,
which tests/reference/make_reference.py wrote with it. The first rung that is off names the culprit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from . import catalogue, oracle, safefile
from .batch import pack
from .errors import EnvironmentProblem
from .model import Model, load

# float32: rounding in sums of up to a few thousand products, through every block; docs/evidence.md
TOLERANCE = 2e-5

# A plain sentence, a pair's worth of punctuation and numbers, one word: three lengths in one pack.
TEXTS = (
    "The committee approved the bill after a long debate about health care.",
    "Profits rose 3.5% in 1987; the company's shares did not.",
    "Worried.",
)
EVERY = 3  # stored references hold each third feature


@dataclass(frozen=True)
class Rung:
    """A stage and the largest absolute difference there."""

    stage: str
    difference: float
    size: float  # largest absolute value of the reference, for scale

    @property
    def holds(self) -> bool:
        """Whether it is within TOLERANCE; a NaN is not."""
        return self.difference <= TOLERANCE


@dataclass(frozen=True)
class Ladder:
    """All rungs from bottom to top, and what was compared with."""

    source: str
    against: str
    rungs: tuple[Rung, ...]

    @property
    def holds(self) -> bool:
        """Whether every rung does."""
        return bool(self.rungs) and all(r.holds for r in self.rungs)

    def __str__(self) -> str:
        wide = max(len(r.stage) for r in self.rungs)
        lines = [
            f"{self.source} against {self.against}, float32, {len(TEXTS)} texts in one pack; "
            f"the largest difference, ok up to {TOLERANCE:g}"
        ]
        lines += [
            f"  {r.stage:<{wide}}  {r.difference:9.2e}  {'ok' if r.holds else f'OFF by more than {TOLERANCE:g}'}"
            for r in self.rungs
        ]
        return "\n".join(lines)


def verify(source: str, kernel: str = "auto", device: str = "cpu") -> Ladder:
    """Compare every stage. Raises EnvironmentProblem where there is nothing to compare with."""
    model = load(source, kernel=kernel, device=device)
    folder = Path(model.report.source)
    stored = catalogue.package_folder("weights") / "reference" / f"{Path(source).name}.safetensors"
    if oracle.installed():
        encoded = model.tokenize(TEXTS) if model.tokenizer else None
        ids = (
            encoded.ids
            if encoded
            else [[(7 * i + n) % model.config.vocab_size for i in range(n)] for n in (11, 5, 2)]
        )
        segments = encoded.segments if encoded and model.config.num_segments > 1 else None
        theirs = oracle.stages(folder, ids, segments, model.config.pad_id, model.head is not None)
        return climb(source, "transformers " + version(), model, ids, segments, theirs, lambda x: x)
    if stored.is_file():
        ids, segments, theirs = read_reference(stored)
        return climb(
            source, f"{stored.name} (stored)", model, ids, segments, theirs, lambda x: x[..., ::EVERY]
        )
    raise EnvironmentProblem(
        f"there is no stored reference for {source} and transformers is not installed",
        "pip install transformers",
    )


@torch.inference_mode()
def climb(
    source: str,
    against: str,
    model: Model,
    ids: list[list[int]],
    segments: list[list[int]] | None,
    theirs: dict[str, list[Tensor]],
    cut: Callable[[Tensor], Tensor],
) -> Ladder:
    """Our stages beside theirs, each cut to the features that theirs holds."""
    batch = pack(ids, segments).to(model.device)
    trace = model.trace(batch)
    ours = {"embeddings": trace["embeddings.normed"]}
    ours |= {f"layers.{i}": trace[f"layers.{i}.ffn_normed"] for i in range(model.config.num_layers)}
    ours |= {name: trace[name] for name in ("pooled", "logits") if name in trace}
    model.carried = {name: tensor.to(model.device) for name, tensor in model.carried.items()}
    if "pooled" in theirs and "pooled" not in ours:
        ours |= pooled(model, trace.output, batch.layout)
    rungs = []
    for stage, tensors in theirs.items():
        if stage in ours:
            right = torch.cat(tensors)
            mine = cut(ours[stage].float().cpu()).reshape(right.shape)  # one output: (B,) ours, (B, 1) theirs
            gap = (mine - right).abs().max()
            rungs.append(Rung(stage, float(gap), float(right.abs().max())))
    return Ladder(source, against, tuple(rungs))


def pooled(model: Model, hidden: Tensor, layout: object) -> dict[str, Tensor]:
    """The pooler's output where it is only carried along: tanh(W h + b) of the first token."""
    weight, bias = model.carried.get("@pooler.dense.weight"), model.carried.get("@pooler.dense.bias")
    if weight is None or bias is None:
        return {}
    return {"pooled": torch.tanh(hidden[layout.starts] @ weight.float().T + bias.float())}


def version() -> str:
    """The reference's version."""
    import importlib.metadata

    return importlib.metadata.version("transformers")


def read_reference(path: Path) -> tuple[list[list[int]], list[list[int]], dict[str, list[Tensor]]]:
    """Ids, segments and the slices of every stage from a stored reference file."""
    safefile.header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    lengths = tensors.pop("lengths").tolist()
    ids = [t.tolist() for t in tensors.pop("ids").split(lengths)]
    segments = [t.tolist() for t in tensors.pop("segments").split(lengths)]
    order = sorted(tensors, key=lambda n: (n not in ("embeddings",), n in ("pooled", "logits"), len(n), n))
    return ids, segments, {name: [tensors[name]] for name in order}
