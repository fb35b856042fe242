"""Everything that the page shows of one text, as one table of numbers that a browser can read.

In:  a Model, a text (and a second one).   Out: the story, a dict for JSON; arrays are float32 in base64.

Numbers come from Encoder.trace, so they are those of a plain call; what the page computes from them (scores,
softmax, sums) it can hold against the encoder's own, which come along.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import __version__
from ..ask import MASK
from ..batch import PackedBatch, pack
from ..errors import ConfigError, DataError
from ..kernels.reference import between
from ..model import Model, evaluating
from ..pretrain import SUMMARY as PRETRAINED
from ..trace import Trace
from ..variants import rotate
from . import lens, measures
from .attribution import attribute, special, targets
from .changes import Change
from .outcome import Outcome, changed, plain, words_head
from .sources import code

LONGEST = 64  # tokens of a page: maps and arithmetic of more can't be followed

POOLED = {
    "cls": "the first of them",
    "mean": "their mean",
    "max": "the largest at each place",
    "mean_sqrt_len_tokens": "their sum over the root of their count",
    "weightedmean": "their mean, later ones counting more",
    "lasttoken": "the last of them",
}

# of a block, in the trace's words; "out" is there where norms come first
OF_BLOCK = ("value", "context", "attn_out", "attn_normed", "ffn_out", "ffn_normed", "out")


@dataclass(frozen=True, eq=False)
class Reading:
    """A text as the page shows it: its batch, what was left out for length, the trace, and what comes out."""

    batch: PackedBatch
    cut: int
    trace: Trace
    first: Outcome


def read(
    model: Model, text: str, pair: str | None = None, max_tokens: int = LONGEST
) -> tuple[PackedBatch, int]:
    """A batch of one text (or pair), and how many of its tokens were left out for length.

    Where the model guesses hidden words, [MASK] in a single text is read as a hidden word.
    """
    if max_tokens < 3:
        raise ConfigError(f"max_tokens = {max_tokens} leaves no room for a word", "Take 3 or more.")
    if not isinstance(text, str) or not isinstance(pair, str | None):
        raise DataError("explain takes one text, and perhaps a second one, each a string")
    masked = words_head(model) is not None and MASK in text + (pair or "")
    if masked and pair is not None:
        raise DataError(
            f"{MASK} is read as a hidden word in a single text only", "Leave the second text out."
        )
    if masked:
        ids = model.tokenizer.with_masks(text.replace(MASK, model.tokenizer.mask))
        if len(ids) > min(max_tokens, model.config.max_tokens):
            raise DataError(f"the text has {len(ids)} tokens, more than {max_tokens}", "Shorten it.")
        return pack([ids]).to(model.device), 0
    reading = {"max_tokens": min(max_tokens, model.reading["max_tokens"]), "truncation": "head"}
    found = model.tokenize([text], None if pair is None else [pair], **reading)
    return model.pack(found, [0]).to(model.device), int(found.cut[0])


@torch.inference_mode()
def follow(model: Model, text: str, pair: str | None = None, max_tokens: int = LONGEST) -> Reading:
    """Read, trace, and see what comes out."""
    batch, cut = read(model, text, pair, max_tokens)
    return Reading(batch, cut, model.trace(batch), plain(model, batch))


def tell(
    model: Model, text: str, pair: str | None = None, *, max_tokens: int = LONGEST, live: bool = False
) -> dict:
    """The story of one text."""
    model.reads_text()  # raises where it can't
    with evaluating(model):
        seen = follow(model, text, pair, max_tokens)
        with torch.inference_mode():
            stages = measures.stages(model.encoder, seen.trace)
        return {
            "version": __version__,
            "model": facts(model),
            "text": text,
            "pair": pair,
            "cut": seen.cut,
            "tokens": tokens(model, seen.batch),
            "live": live,
            "arrays": {name: packed(array) for name, array in arrays(model, seen, stages).items()},
            "units": units(model, seen.trace),
            "code": code(model.config.facts.gated, model.config.facts.pre_norm),
            "outcome": {
                "kind": seen.first.kind,
                "names": seen.first.names,
                "plain": numbers(seen.first.plain),
                "about": seen.first.about,
            },
            "whatif": what_if(model, seen),
            "answer": answer(model, seen.trace),
            "fills": lens.fills(model, seen.batch, seen.trace.output),
            "lens": lens.lens(model, seen.batch, stages),
            "attribution": attributions(model, seen.batch),
        }


def facts(model: Model) -> dict:
    """What the page says of the model."""
    config = model.config
    return {
        "name": called(model),
        "family": config.family,
        "layers": config.num_layers,
        "heads": config.num_heads,
        "width": config.hidden_width,
        "words": config.words_width,
        "head_width": config.head_width,
        "ffn": config.ffn_width,
        "vocab": config.vocab_size,
        "eps": config.norm_eps,
        "scale": config.head_width**-0.5,
        "activation": config.activation,
        "head": model.head.kind if model.head is not None else None,
        "pooled": pooled(model),
        "labels": list(model.labels),
        "pre_norm": config.facts.pre_norm,
        "gated": config.facts.gated,
        "rotary": bool(config.rotary),
        "distance": bool(config.relative_buckets),
        "windows": list(config.windows) or [0] * config.num_layers,
        "note": note(model),
    }


def called(model: Model) -> str:
    """What it was loaded from, without the folders above: of a run's model the run's name."""
    path = Path(model.name)
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def pooled(model: Model) -> str:
    """What the text's one vector is made of (outcome.vector), in words."""
    kinds = model.embedder.pooling if model.embedder else ("mean",)
    return " and ".join(POOLED[kind] for kind in kinds)


def note(model: Model) -> str:
    """What a reader should know of a head that is new, or that `minibert pretrain` made."""
    if model.head is not None and model.report and model.report.new:
        return "Its head is new: nothing has been learnt with it, and its answers mean nothing."
    path = Path(model.name) / PRETRAINED
    if words_head(model) is None or not path.is_file():
        return ""
    told = json.loads(path.read_text(encoding="utf-8"))
    if told["head"] != "trained from new":
        return ""
    after = told["after"]
    return (
        f"Its masked-language head was not published: minibert pretrain made it. On texts held out it guesses "
        f"{after['accuracy']:.0%} of hidden words (perplexity {after['perplexity']:,.0f})."
    )


def tokens(model: Model, batch: PackedBatch) -> list[dict]:
    """A row a token."""
    ids = batch.token_ids.tolist()
    rows = zip(
        model.tokenizer.tokens(ids), ids, batch.positions.tolist(), batch.segments.tolist(),
        special(model, batch.token_ids).tolist(),
    )  # fmt: skip
    return [dict(zip(("piece", "id", "position", "segment", "special"), row)) for row in rows]


@torch.inference_mode()
def arrays(model: Model, seen: Reading, stages: Tensor) -> dict[str, Tensor]:
    """Every tensor of the page by the trace's names."""
    trace, encoder = seen.trace, model.encoder
    out = {name: trace[name] for name in trace if name.startswith("embeddings.")}
    out |= norm_of("embeddings.norm", encoder.embeddings.norm)
    rolled = measures.rollout([trace[f"layers.{i}.probs"][0] for i in range(model.config.num_layers)])
    for i, block in enumerate(encoder.walk()):
        at = f"layers.{i}."
        q, k = (turned(block.attn, trace[at + name], seen.batch) for name in ("query", "key"))
        out |= {
            at + "query": q,
            at + "key": k,
            at + "probs": trace[at + "probs"][0],
            at + "rollout": rolled[i],
        }
        out |= {at + name: trace[at + name] for name in OF_BLOCK if at + name in trace}
        out[at + "parts"] = measures.head_parts(block.attn, trace[at + "context"], trace[at + "attn_out"])
        if block.attn.distance:
            out[at + "bias"] = between(len(q), None, block.attn.bias(seen.batch.layout), q)
        out |= norm_of(at + "attn_norm", block.attn_norm) | norm_of(at + "ffn_norm", block.ffn_norm)
    return out | {f"depth.{name}": told for name, told in measures.depth(stages).items()}


def turned(attn: nn.Module, x: Tensor, batch: PackedBatch) -> Tensor:
    """Queries or keys (N, H, K) as the scores use them: turned by position, where they are."""
    return rotate(x, batch.layout, attn.rotary) if attn.rotary else x


def norm_of(name: str, norm: nn.Module) -> dict[str, Tensor]:
    """A LayerNorm's scale and shift, where there is one."""
    return {f"{name}.{part}": value for part, value in norm.named_parameters()}


@torch.inference_mode()
def units(model: Model, trace: Trace) -> list[list[dict]]:
    """The feed-forwards' strongest units, by layer and token."""
    return [
        measures.units(block, *(trace[f"layers.{i}.{name}"] for name in ("ffn_up", "ffn_act", "ffn_out")))
        for i, block in enumerate(model.encoder.walk())
    ]


@torch.inference_mode()
def what_if(model: Model, seen: Reading) -> dict:
    """What comes out without each head, each layer, and the positions."""
    L, H = model.config.num_layers, model.config.num_heads
    changes = [Change(heads=((i, h),)) for i in range(L) for h in range(H)]
    changes += [Change(layers=(i,)) for i in range(L)]
    found = changed(model, seen.batch, seen.first, changes)  # (L H + L, n)
    found = torch.cat([found, changed(model, seen.batch, seen.first, [Change(positions=True)])])
    values, sizes = [numbers(one) for one in found], [seen.first.change(one) for one in found]

    def by_part(told: list) -> dict:
        heads = [told[i * H : i * H + H] for i in range(L)]
        return {"heads": heads, "layers": told[L * H : L * H + L], "positions": told[-1]}

    return by_part(values) | {
        "change": by_part(sizes),
        "change_about": seen.first.difference,
    }


@torch.inference_mode()
def answer(model: Model, trace: Trace) -> dict | None:
    """What the head says of the whole text: a row a class, or a value."""
    kind = model.head.kind if model.head is not None else None
    if kind not in ("classification", "multilabel", "nsp", "sop", "regression"):
        return None
    logits = trace["logits"].flatten()
    found = model.head.predict(trace["logits"]).flatten()
    if kind == "regression":
        return {"kind": kind, "rows": [], "value": float(found[0])}
    names = model.labels or [f"class {i}" for i in range(len(logits))]
    rows = sorted(zip(names, numbers(logits), numbers(found)), key=lambda row: -row[1])
    return {"kind": kind, "rows": [list(row) for row in rows], "value": None}


def attributions(model: Model, batch: PackedBatch) -> list[dict] | None:
    """Which tokens carried the answer, for each number of it that is told."""
    found = [attribute(model, batch, target) for target in targets(model, batch)]
    return [
        {
            "target": one.target,
            "logit": one.logit,
            "base": one.base,
            "gradient": numbers(one.gradient),
            "integrated": numbers(one.integrated),
            "occlusion": numbers(one.occlusion),
            "sum": float(one.integrated.sum()),
            "missing": one.missing,
            "steps": one.points,
        }
        for one in found
    ] or None


def packed(array: Tensor) -> list:
    """[shape, base64 of little-endian float32]."""
    values = array.detach().float().cpu().contiguous().numpy().astype("<f4")
    return [list(values.shape), base64.b64encode(values.tobytes()).decode("ascii")]


def numbers(array: Tensor) -> list[float]:
    """A list of floats, each with the seven digits that float32 has."""
    return [float(f"{value:.7g}") for value in array.flatten().tolist()]
