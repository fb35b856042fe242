"""The lines of the project's own code that compute a stage, cut out when a page is made, so that they can't drift.

In:  the names of this file's table.   Out: for each stage its file, symbol, lines, and which of them to mark.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from .. import encoder, heads, variants
from ..kernels import reference

# stage -> (what is shown, pieces of the lines that matter most: each must be there)
STAGES = {
    "embeddings": (
        encoder.Embeddings.forward,
        ("self.word(", "self.position(", "self.segment(", "self.norm("),
    ),
    "project": (encoder.SelfAttention.forward, ("project(hidden)",)),
    "meet": (encoder.SelfAttention.meet, ("kernels.attend(", "scale=")),
    "attend": (reference.reference, ("probabilities(scores(", "probs @ v_text")),
    "scores": (reference.scores, ("* scale",)),
    "probabilities": (reference.probabilities, ("softmax(-1)",)),
    "out": (encoder.SelfAttention.forward, ("self.out(",)),
    "attended": (encoder.Block.forward, ("self.attn_norm(hidden +",)),
    "feed_forward": (encoder.FeedForward.forward, ("self.down(self.activation(self.up(",)),
    "fed": (encoder.Block.forward, ("self.ffn_norm(hidden +",)),
    "encoder": (encoder.Encoder.forward, ("self.embeddings(", "block(hidden")),
    "head": (heads.Head.forward, ("self.out(self.read(",)),
}

# ... and what other families have in its place
GATED = {"feed_forward": (variants.GatedFeedForward.forward, ("self.activation(self.up(", "self.down("))}
PRE_NORM = {
    "attended": (encoder.Block.forward, ("self.attn(self.attn_norm(",)),
    "fed": (encoder.Block.forward, ("self.ffn(self.ffn_norm(",)),
}


def code(gated: bool = False, pre_norm: bool = False) -> dict[str, dict]:
    """Every stage's lines, of a family whose feed-forward is `gated`, whose blocks normalise first (`pre_norm`)."""
    stages = STAGES | (GATED if gated else {}) | (PRE_NORM if pre_norm else {})
    return {stage: lines_of(*told) for stage, told in stages.items()}


def lines_of(shown: object, pieces: tuple[str, ...]) -> dict:
    """file, symbol, the first line's number, the lines, and the places of those to mark."""
    lines, first = inspect.getsourcelines(shown)
    lines = [line.rstrip("\n") for line in lines]
    missing = [piece for piece in pieces if not any(piece in line for line in lines)]
    if missing:
        raise LookupError(f"{shown.__qualname__} has no line with {missing[0]!r}: mend STAGES in sources.py")
    package = Path(__file__).resolve().parent.parent
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return {
        "file": "minibert/" + Path(inspect.getsourcefile(shown)).resolve().relative_to(package).as_posix(),
        "symbol": shown.__qualname__,
        "first": first,
        "lines": [line[margin:] for line in lines],
        "marked": [i for i, line in enumerate(lines) if any(piece in line for piece in pieces)],
    }
