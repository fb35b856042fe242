"""`minibert bench encoder`: reading texts, from the naive padded encoder to the fastest there is, step by step.

In:  Settings.   Out: what stands in encoder.json:

    minibert, verb, settings
    conditions   the machine, and what else it did (conditions.py)
    texts        how many, their real tokens, the longest, the mean, the share of padding in batches of 32
    peak         as in attention.json: the best that this machine did just before and after
    rows         step, what; kind: ours, peer or ceiling; outcome: ok, unsupported, out_of_memory or error, and why;
                 tokens_per_second {p20, p50, p80}: real tokens, over rounds; share_of_ceiling;
                 error: the largest difference from the plain model's hidden states, and cosine, the least;
                 verdict PASS, FAIL or ""; speedup {value, low, high} over `baseline`, the first step; gain: the same over the step
                 before; ours_over_it: the same of our fastest step over a peer; settings; rounds [s]

All are given token ids; what they need from there on counts: sorting, padding, masks, packing, batches. They
take turns round by round (clock.py), peers in processes of their own (peers.py). A step that isn't within LIMIT of
the plain model has no speed-up. The ceiling is the time of the products alone (ceiling.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from .. import __version__, catalogue, data, spec
from .. import device as devices
from ..batch import by_tokens, pack
from ..folder import model_of
from ..loading import load
from ..model import TOKENS_AT_ONCE, Model
from . import conditions, work
from .case import outcome
from .ceiling import Products
from .clock import Contestant, race
from .lengths import texts_of
from .peers import Peer, started
from .rectangles import registered
from .steps import STEPS, Reader, Step, as_they_come, contestant
from .waterfall import CEILING, Row, fill
from .waterfall import row as new_row

BUDGETS = (512, 1024, 2048, 4096, 8192, 16384)  # tokens at once, of which the fastest is looked for
TRIALS = 3  # rounds of that, on every other text
CLEAR = 0.97  # of the usual budget's time: less is worth a line of its own
LIMIT = 2e-5  # of hidden states, as the tests' "hidden float32": another order of sums, in every block


@dataclass(frozen=True)
class Settings:
    """What is read, and how often. texts: a task's name, or csv:FILE:COLUMN; threads 0: torch's own choice."""

    model: str = "all-MiniLM-L6-v2"
    texts: str = "reuters8"
    examples: int = 512
    max_tokens: int = 256
    rounds: int = 7
    threads: int = 0
    peers: Path | None = None
    seed: int = 0

    def quick(self) -> Settings:
        """The smallest that runs every step."""
        few = {"examples": min(self.examples, 32), "max_tokens": min(self.max_tokens, 64)}
        return dataclasses.replace(self, **few, rounds=2, peers=None)


def run(settings: Settings, tell: Callable[[str], None] = lambda words: None) -> dict[str, Any]:
    """Measure all steps, and the peers if there are to be any; `tell` hears what is going on."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    place, model = torch.device("cpu"), load(settings.model, head=None, device="cpu")
    limit = min(settings.max_tokens, model.reading["max_tokens"])
    settings = dataclasses.replace(settings, threads=torch.get_num_threads(), max_tokens=limit)
    texts = drawn(settings)
    ids = model.tokenize(texts, max_tokens=limit, truncation="head").ids
    for warning in conditions.check_idle(place):
        tell(warning)
    watch, before = conditions.Watch(place), work.peak(["float32"], place)
    with contextlib.ExitStack() as stack:
        stack.enter_context(threadpool_limits(settings.threads, user_api="blas"))  # NumPy's, in the ceiling
        stack.enter_context(registered())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tell("the plain model's answers, one text at a time")
        plain = Reader(Step("plain", "", kernel="reference"), model, ids).hidden()
        peers: list[Peer] = []
        if settings.peers:
            job = job_of(settings, model, texts, ids, plain, folder)
            peers = stack.enter_context(started(settings.peers, job, folder, tell))
        rows = measured(settings, model, ids, plain, peers, tell)
    peak = work.higher(before, work.peak(["float32"], place))
    return {
        "minibert": __version__,
        "verb": "encoder",
        "settings": dataclasses.asdict(settings) | {"peers": str(settings.peers or "")},
        "conditions": {**conditions.machine(place), **watch.ended()},
        "texts": about(ids),
        "peak": peak,
        "rows": rows,
    }


def drawn(settings: Settings) -> list[str]:
    """The texts, from a column or from a task's test part, in an order drawn by the seed."""
    kind, _, rest = settings.texts.partition(":")
    if kind == "csv":
        found = texts_of(rest, "--texts")
    else:
        task = spec.load(catalogue.locate_task(settings.texts))
        found = data.load_splits(task, lambda word: catalogue.locate_data(word, task.folder)).test.texts
    return random.Random(settings.seed).sample(found, min(settings.examples, len(found)))


def about(ids: list[list[int]]) -> dict[str, Any]:
    """What the texts are like, and how much padding there is if they are read as they come."""
    lengths = [len(text) for text in ids]
    cells = sum(len(places) * max(lengths[i] for i in places) for places in as_they_come(lengths, 0))
    return {"texts": len(ids), "tokens": sum(lengths), "longest": max(lengths),
            "mean": statistics.mean(lengths), "padding_share": 1 - sum(lengths) / cells}  # fmt: skip


def job_of(
    settings: Settings, model: Model, texts: list[str], ids: list[list[int]], plain: np.ndarray, folder: Path
) -> dict[str, Any]:
    """What the peers are given (`Job` in benchmarks/peers/serving.py); our answers lie in files."""
    hidden, vectors = folder / "hidden.npy", ""
    np.save(hidden, plain)
    if model.embedder is not None and not model.embedder.prompt:
        vectors = str(folder / "vectors.npy")
        with torch.inference_mode():
            np.save(vectors, model.embedder(torch.from_numpy(plain), pack(ids).layout).numpy())
    return {
        "weights": str(model_of(catalogue.locate_weights(settings.model))),
        "texts": texts,
        "ids": ids,
        "pad": model.config.pad_id,
        "max_tokens": settings.max_tokens,
        "threads": settings.threads,
        "heads": model.config.num_heads,
        "width": model.config.hidden_width,
        "hidden": str(hidden),
        "vectors": vectors,
    }


def measured(
    settings: Settings,
    model: Model,
    ids: list[list[int]],
    plain: np.ndarray,
    peers: Sequence[Peer],
    tell: Callable[[str], None],
) -> list[Row]:
    """The rows of the ceiling, the steps and the peers, who all ran in turn."""
    tell("which library multiplies fastest, and how many tokens at once go fastest")
    entries = [ceiling(model, ids)]
    budget = tuned(model, ids)
    for step in STEPS:
        tell(f"checked: {step.name}")
        reader = Reader(step, model, ids, budget if step.budget == "tuned" else TOKENS_AT_ONCE)
        entries.append((checked(reader, plain), reader.contestant(step.name)))
    entries += [beside(peer) for peer in peers]
    rows = [row for row, _ in entries]
    able = [one for row, one in entries if row["outcome"] == "ok"]
    tell(f"{len(able)} contestants, {settings.rounds} rounds")
    timed = race(
        able,
        lambda number: tell(f"round {number}") if number else None,
        rounds=settings.rounds,
        warm=0.0,
        seed=settings.seed,
    )
    fill(rows, timed, sum(map(len, ids)))
    return rows


def ceiling(model: Model, ids: list[list[int]]) -> tuple[Row, Contestant]:
    """The products of packed batches, by the fastest library."""
    lengths = [len(text) for text in ids]
    sizes = [sum(lengths[place] for place in places) for places in by_tokens(lengths, TOKENS_AT_ONCE)]
    products = Products(model.config, max(sizes))
    library = products.fastest()
    all_of = products.by(library)
    what = f"query, key, value, out, up, down of each layer, by {library}"
    return new_row(CEILING, what, "ceiling", settings={"library": library}), contestant(
        CEILING, lambda: all_of(sizes[-1:]), lambda: all_of(sizes)
    )


def tuned(model: Model, ids: list[list[int]]) -> int:
    """Tokens at once that every other text is read fastest with; TOKENS_AT_ONCE unless another is clearly faster."""
    some, usual = ids[::2], TOKENS_AT_ONCE
    total = sum(map(len, some))
    budgets = sorted({usual, *(n for n in BUDGETS if n < total)})
    if len(budgets) == 1:
        return usual
    trials = [Reader(STEPS[-1], model, some, n).contestant(str(n)) for n in budgets]
    found = race(trials, lambda number: None, rounds=TRIALS, warm=0.0)
    times = {n: statistics.median(found[str(n)].rounds.values()) for n in budgets}
    best = min(times, key=times.__getitem__)
    return best if times[best] < CLEAR * times[usual] else usual


def checked(reader: Reader, plain: np.ndarray) -> Row:
    """A step's row with its error, or with why it isn't run."""
    step = reader.step
    settings = {"kernel": reader.kernel, "tokens at once": reader.budget}
    row = new_row(step.name, step.what, "ours", settings=settings)
    if step.products == "best" and step.budget == "usual" and devices.products() == "torch's own":
        return row | {
            "outcome": "unsupported",
            "why": "torch's own library is what device.products takes here",
        }
    if step.budget == "tuned" and reader.budget == TOKENS_AT_ONCE:
        return row | {
            "outcome": "unsupported",
            "why": f"no other budget was clearly faster than {TOKENS_AT_ONCE:,}",
        }
    try:
        error = float(np.abs(reader.hidden() - plain).max())
    except Exception as problem:
        row["outcome"], row["why"] = outcome(problem)
        return row
    return row | {"error": error, "verdict": "PASS" if error <= LIMIT else "FAIL"}


def beside(peer: Peer) -> tuple[Row, Contestant]:
    """A peer's row with how far its answers are from ours, or with why it doesn't run."""
    row = new_row(peer.name, peer.what, "peer", settings=peer.settings)
    if peer.why:
        row |= {"outcome": "unsupported", "why": peer.why}
    if peer.error:
        row |= {"error": peer.error["largest"], "cosine": peer.error["cosine"]}
        if peer.numbers == "float32":  # int8 is another model; its cosine says how near
            row["verdict"] = "PASS" if row["error"] <= LIMIT else "FAIL"
    return row, contestant(peer.name, lambda: peer.ask(True), lambda: peer.ask(False))
