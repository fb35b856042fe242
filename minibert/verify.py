"""`minibert verify`: our forward and backward pass held against the reference, stage by stage.

In:  a checkpoint.   Out: Ladder: the largest difference at the embeddings, each block, pooler, logits, and
     of the gradients of embeddings, each block and the head.

Compared is with transformers where it is installed, else with the tensors in weights/reference/,
which tests/reference/make_reference.py wrote with it. The first rung that is off names the culprit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from . import catalogue, oracle, safefile
from .batch import Layout, PackedBatch, pack
from .checkpoint import plain_names, rows_for, theirs_of
from .errors import ConfigError, EnvironmentProblem
from .families import ARCHITECTURES, reads
from .loading import load
from .model import Model
from .names import NAMES, TIED
from .oracle import Reference

# float32: rounding in sums of up to a few thousand products, through every block; docs/evidence.md
TOLERANCE = 2e-5
GRADIENT = 1e-4  # of a parameter's largest gradient
NEGLIGIBLE = 1e-6  # of the model's largest: key biases have a true gradient of zero

# A plain sentence, a pair's worth of punctuation and numbers, one word: three lengths in one pack.
TEXTS = (
    "The committee approved the bill after a long debate about health care.",
    "Profits rose 3.5% in 1987; the company's shares did not.",
    "Worried.",
)
STORED = 190_000  # bytes of stages in a stored reference, which holds as many of the features as fit
GRADIENT_OF = "gradient of "  # a parameter, in a stored reference
ENTRIES = 6  # ... and of each gradient its largest, and entries at so many places


@dataclass(frozen=True)
class Rung:
    """A stage and the largest difference there: absolute, or of gradients as a share of the largest."""

    stage: str
    difference: float
    size: float  # largest absolute value of the reference, for scale
    tolerance: float = TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether it is within the tolerance; a NaN is not."""
        return self.difference <= self.tolerance


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
            f"{self.source} against {self.against}, float32, {len(TEXTS)} texts in one pack; the largest difference, "
            f"ok up to {TOLERANCE:g}, of gradients up to {GRADIENT:g} of a parameter's largest"
        ]
        lines += [
            f"  {r.stage:<{wide}}  {r.difference:9.2e}  {'ok' if r.holds else f'OFF by more than {r.tolerance:g}'}"
            for r in self.rungs
        ]
        return "\n".join(lines)


def verify(source: str, kernel: str = "auto", device: str = "cpu") -> Ladder:
    """Compare every stage. Raises EnvironmentProblem where there is nothing to compare with."""
    model = load(source, kernel=kernel, device=device)
    if (
        model.head is not None
        and model.head.texts
        and model.pooling not in (model.config.facts.poolings or ("cls",))
    ):
        raise ConfigError(
            f"the head of {source} reads {model.pooling!r}, which the reference can't: there is nothing to compare"
        )
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
        kind = model.head.kind if model.head is not None else None
        architecture = model.config.facts.stem + ARCHITECTURES[reads(kind)] if kind else ""
        theirs = oracle.reference(folder, ids, segments, model.config.pad_id, kind, architecture)
        return climb(source, "transformers " + version(), model, ids, segments, theirs)
    if stored.is_file() and source in catalogue.weights():
        ids, segments, theirs = read_reference(stored)
        stride = -(-model.config.hidden_width // theirs.stages["embeddings"].shape[-1])
        return climb(
            source,
            f"{stored.name} (stored)",
            model,
            ids,
            segments,
            theirs,
            lambda x: x[..., ::stride],
            fingerprint,
        )
    raise EnvironmentProblem(
        f"there is no stored reference for {source} and transformers is not installed",
        "pip install transformers",
    )


def stride_of(stages: dict[str, Tensor]) -> int:
    """The step between stored features, so that they fit in STORED bytes of float32."""
    return math.ceil(sum(x.numel() for x in stages.values()) * 4 / STORED)


def fingerprint(gradient: Tensor) -> Tensor:
    """What of a gradient a stored reference holds: its largest absolute value, and entries at fixed places."""
    flat = gradient.flatten()
    places = torch.linspace(0, len(flat) - 1, ENTRIES, dtype=torch.float64).long()
    return torch.cat([flat.abs().max()[None], flat[places]])


def whole(tensor: Tensor) -> Tensor:
    """All of it."""
    return tensor


def climb(
    source: str,
    against: str,
    model: Model,
    ids: list[list[int]],
    segments: list[list[int]] | None,
    theirs: Reference,
    cut: Callable[[Tensor], Tensor] = whole,
    mark: Callable[[Tensor], Tensor] = whole,
) -> Ladder:
    """Our stages and gradients beside theirs, each cut to what theirs holds."""
    batch = pack(ids, segments).to(model.device)
    with torch.no_grad():  # not inference_mode: the backward pass reads what the layout keeps
        ours = stages(model, batch)
    if "pooled" in theirs.stages and "pooled" not in ours:
        ours |= pooled(model, ours[f"layers.{model.config.num_layers - 1}"], batch.layout)
    rungs = []
    for stage, right in theirs.stages.items():
        if stage in ours:
            gap = (cut(ours[stage].float().cpu()) - right).abs().max()
            rungs.append(Rung(stage, float(gap), float(right.abs().max())))
    return Ladder(source, against, (*rungs, *slopes(model, batch, theirs.gradients, mark)))


def stages(model: Model, batch: PackedBatch) -> dict[str, Tensor]:
    """Our embeddings, blocks, pooled and logits; after the last block the norm that some families have there."""
    trace, last = model.trace(batch), model.config.num_layers - 1
    out = {"embeddings": trace.get("embeddings.projected", trace["embeddings.normed"])}
    for i in range(last + 1):
        out[f"layers.{i}"] = trace.get(f"layers.{i}.out", trace[f"layers.{i}.ffn_normed"])
    if "final_normed" in trace:
        out[f"layers.{last}"] = trace["final_normed"]
    return out | {name: trace[name] for name in ("pooled", "logits", "order") if name in trace}


def pooled(model: Model, hidden: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The pooler's output where it is only carried along: tanh(W h + b) of the first token."""
    found = {n.rpartition(".")[2]: t for n, t in model.carried.items() if n.startswith("@pooler.")}
    if set(found) != {"weight", "bias"}:
        return {}
    weight, bias = (found[word].to(hidden.device, torch.float32) for word in ("weight", "bias"))
    return {"pooled": torch.tanh(hidden[layout.starts].float() @ weight.T + bias)}


def slopes(
    model: Model, batch: PackedBatch, theirs: dict[str, Tensor], mark: Callable[[Tensor], Tensor]
) -> list[Rung]:
    """A rung for the gradients of the embeddings, of each block, and of the head: the worst parameter of each."""
    if not theirs:
        return []
    out = model(batch)
    model.zero_grad(set_to_none=True)
    oracle.pulled(*(out if isinstance(out, tuple) else (out,))).backward()
    encoder, head = rows_for(model.config, model.head.kind if model.head is not None else None)
    ours = theirs_of(encoder, gradients(model.encoder)) | theirs_of(head, gradients(model.head))
    groups = {r.theirs: group_of(r.ours) for r in encoder} | {r.theirs: "head" for r in head}
    model.zero_grad(set_to_none=True)
    plain = plain_names(list(theirs), NAMES[model.config.family])[0]
    ties = TIED if model.config.tied else {}  # a tied one by its first name
    right = {ties.get(plain[name], plain[name]): x for name, x in theirs.items()}
    top = max(float(x.abs().max()) for x in right.values())
    worst: dict[str, tuple[float, float]] = {}
    for name, group in groups.items():
        if name in ties or (name not in right and name not in ours):
            continue  # has been told by its first name; or no answer depends on it
        there = right.get(name, torch.full((1,), torch.nan))  # a gradient here alone is a fault
        size = float(there.abs().max())
        mine = mark(ours[name].float().cpu()) if name in ours else torch.zeros_like(there)
        gap = float((mine - there).abs().max())
        share = gap / max(size, top * NEGLIGIBLE / GRADIENT)
        seen = worst.get(group, (-1.0, 0.0))
        worst[group] = (share if share > seen[0] or share != share else seen[0], max(seen[1], size))
    return [Rung(f"gradients of {g}", share, size, GRADIENT) for g, (share, size) in worst.items()]


def gradients(module: torch.nn.Module | None) -> dict[str, Tensor]:
    """Name -> gradient of a module's parameters, where they have one."""
    named = module.named_parameters(remove_duplicate=False) if module is not None else ()
    return {name: p.grad for name, p in named if p.grad is not None}


def group_of(name: str) -> str:
    """layers.3 of layers.3.attn.query.weight; embeddings, distance, final_norm."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "layers" else parts[0]


def version() -> str:
    """The reference's version."""
    import importlib.metadata

    return importlib.metadata.version("transformers")


def read_reference(path: Path) -> tuple[list[list[int]], list[list[int]], Reference]:
    """Ids, segments, and the slices of every stage and gradient from a stored reference file."""
    safefile.header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    lengths = tensors.pop("lengths").tolist()
    ids = [t.tolist() for t in tensors.pop("ids").split(lengths)]
    segments = [t.tolist() for t in tensors.pop("segments").split(lengths)]
    gradients = {
        n.removeprefix(GRADIENT_OF): tensors.pop(n) for n in list(tensors) if n.startswith(GRADIENT_OF)
    }
    order = sorted(tensors, key=lambda n: (n not in ("embeddings",), n in ("pooled", "logits"), len(n), n))
    return ids, segments, Reference({name: tensors[name] for name in order}, gradients)
