"""What draw.py draws, measured: five findings on all-MiniLM-L6-v2, over the sentences beside this file.

Each finding is a function that measures (numbers by name) and one that says them in lines; README.md shows these
lines, and a test compares. Heads are counted as the trace counts them: `layers.0.probs`, head 2. Depth is the
number of layers that a word's vector has passed: 0 is the embeddings.
"""

import csv
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import minibert

HERE = Path(__file__).parent
SENTENCES = HERE / "sentences.txt"  # one a line; draw.py --sentences reads others
LAYERS, HEADS, DEPTHS = 6, 12, range(7)


class Run(NamedTuple):
    """Sentences as the model read them."""

    model: minibert.Model
    batch: minibert.PackedBatch
    trace: minibert.Trace
    words: list[np.ndarray]  # of each sentence the rows of its tokens in the pack, without [CLS] and [SEP]


def read(model: minibert.Model, batch: minibert.PackedBatch) -> Run:
    with torch.inference_mode():
        trace = model.trace(batch)
    ends = np.cumsum(batch.layout.lengths)
    return Run(model, batch, trace, [np.arange(e - n + 1, e - 1) for e, n in zip(ends, batch.layout.lengths)])


@functools.cache
def plain() -> Run:
    """The sentences, as they are; those of fewer than ten tokens are left out, and it is said how many."""
    model = minibert.load("all-MiniLM-L6-v2", kernel="reference", device="cpu").eval()
    lines = SENTENCES.read_text("utf-8").splitlines()
    long = [line for line, n in zip(lines, model.tokenize(lines).tokens) if n >= 10]
    if len(long) < len(lines):
        print(f"{len(lines) - len(long)} of {len(lines)} sentences have fewer than ten tokens: left out")
    return read(model, model.encode(long))


@functools.cache
def shuffled() -> Run:
    """The same words, the positions of each sentence dealt out anew; [CLS] and [SEP] keep theirs."""
    run, draw = plain(), np.random.default_rng(0)
    positions = run.batch.positions.clone()
    for rows in run.words:
        positions[rows] = torch.from_numpy(draw.permutation(len(rows)) + 1)
    return read(run.model, replace(run.batch, positions=positions))


def of_heads(run: Run, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """measure(probs (H, n, n)) -> (H,), of every layer, head and sentence: (L * H, sentences)."""
    every = [[measure(p.numpy()) for p in run.trace[f"layers.{i}.probs"]] for i in range(LAYERS)]
    return np.array(every).swapaxes(1, 2).reshape(LAYERS * HEADS, -1)


def hidden(run: Run, depth: int) -> np.ndarray:
    """(N, D) behind so many layers."""
    return run.trace["embeddings.normed" if depth == 0 else f"layers.{depth - 1}.ffn_normed"].numpy()


def vectors(run: Run) -> np.ndarray:
    """(sentences, D): the sentence vectors that `Model.embed` gives."""
    return run.model.embedder(run.trace.output, run.batch.layout).numpy()


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def strangers() -> float:
    """The mean cosine of two different sentences' vectors."""
    found = vectors(plain())
    return (found @ found.T)[~np.eye(len(found), dtype=bool)].mean()


def even() -> float:
    """The weight of one token for a head that gives every token the same."""
    return float(np.mean([1 / n for n in plain().batch.layout.lengths]))


def interval(values: np.ndarray) -> str:
    """The mean, and 95 % of the means of 2,000 draws with replacement: how sure it is over other such sentences."""
    draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    return f"{values.mean():.3f} ({np.quantile(draws, 0.025):.3f} to {np.quantile(draws, 0.975):.3f})"


def named(head: int) -> str:
    return f"layer {head // HEADS}, head {head % HEADS}"


def said(name: str, *numbers: float | str) -> str:
    """A line of a table."""
    cells = "".join(f"{x:>7}" if isinstance(x, (str, int)) else f"{x:7.3f}" for x in numbers)
    return f"{name:<44}{cells}".rstrip()


# --- the previous word ----------------------------------------------------------------------------


def at_distance(distance: int) -> Callable[[np.ndarray], np.ndarray]:
    """How much words look at the word so far from them; words that have none there are left out."""

    def measure(probs: np.ndarray) -> np.ndarray:
        n = probs.shape[-1]
        asks = np.arange(max(1, 1 - distance), min(n - 1, n - 1 - distance))
        return probs[:, asks, asks + distance].mean(-1)

    return measure


def measure_previous() -> dict:
    found = {d: of_heads(plain(), at_distance(d)) for d in range(-4, 5)}
    before = found[-1]
    first, second = np.argsort(-before.mean(1))[:2]
    return {
        "before": before,
        "after": found[1],
        "first": first,
        "second": second,
        "half": np.argmax(before[:, ::2].mean(1)),
        "shuffled": of_heads(shuffled(), at_distance(-1))[first].mean(),
        "profile": {d: x[first].mean() for d, x in found.items()},
        "middle": {d: np.median(x.mean(1)) for d, x in found.items()},
    }


def say_previous(m: dict) -> list[str]:
    before, after = m["before"], m["after"]
    later = int(np.argmax(after.mean(1)))
    return [
        said(f"weight on the previous word, {before.shape[1]} sentences"),
        said("  a head that looks evenly", even()),
        said("  the middle one of 72 heads", np.median(before.mean(1))),
        said(f"  {named(m['first'])}", "  " + interval(before[m["first"]])),
        said(f"  {named(m['second'])}, the next", "  " + interval(before[m["second"]])),
        said("  heads above twice an even look", int((before.mean(1) > 2 * even()).sum())),
        said(f"  {named(m['half'])}, chosen on half: on the rest", before[m["half"], 1::2].mean()),
        said(f"  {named(m['first'])}, positions shuffled", m["shuffled"]),
        said(f"weight on the next word, {named(later)}", "  " + interval(after[later])),
    ]


# --- separators -----------------------------------------------------------------------------------


def collected(run: Run) -> np.ndarray:
    """The share of [CLS] in what a head collects, |p v| of it over the sum of |p v| of all: (L * H,).

    A weight says how much of a value is taken, and of a short value that is little (Kobayashi et al. 2020).
    """
    shares = []
    for i in range(LAYERS):
        sizes = run.trace[f"layers.{i}.value"].norm(dim=-1).split(run.batch.layout.lengths)  # (n, H) each
        parts = [(p * size.T[:, None])[:, 1:-1] for p, size in zip(run.trace[f"layers.{i}.probs"], sizes)]
        shares.append(np.mean([(x[..., 0] / x.sum(-1)).mean(-1).numpy() for x in parts], 0))
    return np.concatenate(shares)


def measure_separators() -> dict:
    start, end, stop = (of_heads(plain(), lambda p, at=at: p[:, 1:-1, at].mean(-1)) for at in (0, -1, -2))
    return {"start": start, "end": end, "stop": stop, "collected": collected(plain())}


def say_separators(m: dict) -> list[str]:
    start, end, stop = (m[name].mean(1) for name in ("start", "end", "stop"))
    most, inner = int(start.argmax()), slice(HEADS, 5 * HEADS)
    return [
        said(f"weight of words on separators, {m['start'].shape[1]} sentences"),
        said("  both, a head that looks evenly", 2 * even()),
        said("  both, mean of 72 heads", (start + end).mean()),
        said("  [CLS], mean of 72 heads", start.mean()),
        said("  [SEP], mean of 72 heads", end.mean()),
        said("  both, heads that give them over half", int((start + end > 0.5).sum())),
        said(f"  [CLS], {named(most)}", "  " + interval(m["start"][most])),
        said("  [CLS], heads above twice an even look", int((start > 2 * even()).sum())),
        said("  [SEP], heads above twice an even look", int((end > 2 * even()).sum())),
        said("  [SEP], the highest head", end.max()),
        said(f"  before [SEP] (full stop), {named(int(stop.argmax()))}", stop.max()),
        said("layers 1 to 4: weight on [CLS]", start[inner].mean()),
        said("... its share of what is collected", m["collected"][inner].mean()),
    ]


# --- scaling --------------------------------------------------------------------------------------


def looks(run: Run, factor: float) -> dict[str, np.ndarray]:
    """Softmax of all scores times a factor. breadth (L * H,): exp(entropy), tokens in a look; ranks (10,):
    the mean of the largest weight, of the second, and so on."""
    breadth, ranks = np.zeros((LAYERS, HEADS)), np.zeros(10)
    for i in range(LAYERS):
        for scores in run.trace[f"layers.{i}.scores"]:
            p = (scores.double() * factor).softmax(-1).numpy()
            breadth[i] += np.exp(-(p * np.log(np.maximum(p, 1e-300))).sum(-1)).mean(-1) / len(run.words)
            ranks += -np.sort(-p, -1)[..., :10].mean((0, 1)) / (LAYERS * len(run.words))
    return {"breadth": breadth.ravel(), "ranks": ranks}


def unscaled(run: Run) -> Run:
    """The same weights without the scale: what leaves `query` is made longer by the root of K."""
    root = run.model.config.head_width**0.5
    parts = [block.attn.query for block in run.model.encoder.layers]
    handles = [part.register_forward_hook(lambda _, x, y: y * root) for part in parts]
    try:
        return read(run.model, run.batch)
    finally:
        for handle in handles:
            handle.remove()


def measure_scaling() -> dict:
    run = plain()
    root = run.model.config.head_width**0.5
    return {
        "with": looks(run, 1.0),
        "without": looks(run, root),
        "root": root,
        "tokens": np.mean(run.batch.layout.lengths),
        "kept": (vectors(run) * vectors(unscaled(run))).sum(-1),
    }


def say_scaling(m: dict) -> list[str]:
    both = [m["with"], m["without"]]
    return [
        said("the root of K", m["root"]),
        said("tokens in a sentence, and in an even look", m["tokens"]),
        said("", "scaled", "not"),
        said("  tokens in a look, the middle of 72 heads", *(np.median(x["breadth"]) for x in both)),
        said("  ... of the narrowest head", *(x["breadth"].min() for x in both)),
        said("  ... of the widest head", *(x["breadth"].max() for x in both)),
        said("  heads with less than two tokens in a look", *(int((x["breadth"] < 2).sum()) for x in both)),
        said("  largest weight, mean of all looks", *(x["ranks"][0] for x in both)),
        said("sentence vectors, scaled and not: cosine", "  " + interval(m["kept"])),
        said("vectors of two different sentences: cosine", strangers()),
    ]


# --- order ----------------------------------------------------------------------------------------


def readable(states: np.ndarray, target: np.ndarray, owner: np.ndarray) -> float:
    """R2 of a ridge regression that reads `target` off the states, on sentences it has not learnt from."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(
        StandardScaler(), Ridge(300)
    )  # 100 and 1,000 give other heights, and the same course
    read_off = cross_val_predict(probe, states, target, groups=owner, cv=GroupKFold(5))
    return 1 - ((read_off - target) ** 2).sum() / ((target - target.mean()) ** 2).sum()


def moved_along(run: Run) -> float:
    """The largest change of a hidden state when words change places and take their positions along."""
    draw = np.random.default_rng(0)
    order = np.concatenate([np.r_[w[0] - 1, draw.permutation(w), w[-1] + 1] for w in run.words])
    ids, positions = run.batch.token_ids[order], run.batch.positions[order]
    moved = read(run.model, replace(run.batch, token_ids=ids, positions=positions))
    return float((moved.trace.output - run.trace.output[order]).abs().max())


def measure_order() -> dict:
    right, mixed = plain(), shuffled()
    rows = np.concatenate(right.words)
    owner, place = right.batch.layout.owner.numpy()[rows], right.batch.positions.numpy()[rows].astype(float)
    neighbours = (owner[:, None] == owner) & ~np.eye(len(rows), dtype=bool)
    draw = np.random.default_rng(0)
    by_lot = np.concatenate([draw.permutation(words) - words[0] + 1.0 for words in right.words])
    states, others = ([hidden(run, depth)[rows] for depth in DEPTHS] for run in (right, mixed))
    return {
        "right": [readable(x, place, owner) for x in states],
        "mixed": [readable(x, place, owner) for x in others],
        "lot": [readable(x, by_lot, owner) for x in states],
        "same": [(unit(a) * unit(b)).sum(-1).mean() for a, b in zip(states, others)],
        "neighbours": [(unit(a) @ unit(a).T)[neighbours].mean() for a in states],
        "kept": (vectors(right) * vectors(mixed)).sum(-1),
        "along": moved_along(right),
    }


def say_order(m: dict) -> list[str]:
    return [
        said("depth", *DEPTHS),
        said("a word's place, read by a probe: R2", *m["right"]),
        said("... positions shuffled", *m["mixed"]),
        said("... places by lot", *m["lot"]),
        said("a word and itself, shuffled: cosine", *m["same"]),
        said("two words of a sentence: cosine", *m["neighbours"]),
        said("sentence vectors, right and shuffled: cosine", "  " + interval(m["kept"])),
        said("vectors of two different sentences: cosine", strangers()),
        said("words moved with their positions", "  no vector changes" if m["along"] < 1e-5 else "  CHANGED"),
    ]


# --- senses ---------------------------------------------------------------------------------------


class Word(NamedTuple):
    """One word of senses.csv: rows (12,) in the pack of the word and of the full stops, second (12,) bool."""

    name: str
    at: np.ndarray
    stops: np.ndarray
    second: np.ndarray


@functools.cache
def senses() -> tuple[Run, list[Word]]:
    with open(HERE / "senses.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    model = plain().model
    run = read(model, model.encode([row["sentence"] for row in table]))
    tokens = model.tokenizer.tokens(run.batch.token_ids)
    out = []
    for name in dict.fromkeys(row["word"] for row in table):
        some = [(row["sense"], words) for row, words in zip(table, run.words) if row["word"] == name]
        at = [next(i for i in words if tokens[i] == name) for _, words in some]
        second = [sense != some[0][0] for sense, _ in some]
        out.append(Word(name, *map(np.array, (at, [words[-1] for _, words in some], second))))
    return run, out


def told_apart(states: np.ndarray, second: np.ndarray) -> float:
    """The share of vectors that are nearer the mean of their own sense's others than that of the other sense."""
    states, right = unit(states), 0
    for i, one in enumerate(states):
        others = np.arange(len(states)) != i
        near = [one @ unit(states[others & (second == sense)].mean(0)) for sense in (False, True)]
        right += (near[1] > near[0]) == second[i]
    return right / len(states)


def measure_senses() -> dict:
    run, words = senses()
    draw, last = np.random.default_rng(0), hidden(run, 6)
    return {
        "word": np.array([[told_apart(hidden(run, d)[w.at], w.second) for w in words] for d in DEPTHS]),
        "stop": np.array([[told_apart(hidden(run, d)[w.stops], w.second) for w in words] for d in DEPTHS]),
        "lot": [
            np.mean([told_apart(last[w.at], draw.permutation(w.second)) for w in words]) for _ in range(100)
        ],
        "bank": [(hidden(run, d)[words[0].at], words[0].second) for d in (0, 1, 6)],
    }


def say_senses(m: dict) -> list[str]:
    names = [word.name for word in senses()[1]]
    return [
        said("share given to the right sense; depth", *DEPTHS),
        said("the word, mean of 8 words", *m["word"].mean(1)),
        said("the full stop, mean of the same", *m["stop"].mean(1)),
        *(said(f"  {name}", *m["word"][:, i]) for i, name in enumerate(names)),
        said("senses by lot, depth 6, mean of 100 draws", np.mean(m["lot"])),
        said("... 95 of 100 are below", np.quantile(m["lot"], 0.95)),
        said("the word at depth 1", "  " + interval(m["word"][1])),
        said("the word at depth 6", "  " + interval(m["word"][6])),
    ]
