"""Races of fine-tuning against transformers' Trainer: `python benchmarks/train.py speed|memory|losses|score|processes|card`.

In:  a shipped task's texts.   Out: results/train_NAME.json and .md.
jobs.py says what the contestants are given, ours.py and peers/trainer.py are they, harness.py runs them in rounds.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestant import memory as held
from harness import HERE, Jobs, Race, Refused, say
from jobs import Job, changed, laid_out, ours, random_bert, shipped, some, theirs
from measures import (
    CPU,
    TOKENS,
    by_round,
    compared,
    differences,
    mean,
    over,
    padding,
    peak_share,
    rate,
    shown,
    step_seconds,
    table,
    typical,
)
from pages import PAGES

from minibert import config, data, metrics
from minibert.device import products
from minibert.errors import MiniBertError
from minibert.outset import budget_of, new_model
from minibert.spec import TaskSpec
from minibert.train import Plan

OURS, TRAINER, GROUPED = "minibert", "Trainer, as it comes", "Trainer, grouped by length"
SWITCHED = f"{GROUPED}, minibert's product library"
WORRY, NEWS = "worry_anxiety", "reuters8"
DROPOUT = {"dropout": 0.1, "attention_dropout": 0.1}
Size = dict[str, Any]

# How large each race is: whole, and to try it.
SIZES: dict[str, tuple[Size, Size]] = {
    "speed": ({"texts": 512, "epochs": 2, "batch_size": 32, "rounds": 5, "trial": 6},
              {"texts": 32, "epochs": 1, "batch_size": 8, "rounds": 2, "trial": 2}),
    "memory": ({"layers": 12, "width": 768, "tokens": 512, "texts": 8, "steps": 3, "rounds": 1},
               {"layers": 2, "width": 384, "tokens": 128, "texts": 4, "steps": 3, "rounds": 2}),
    "losses": ({"steps": 50, "batch_size": 16, "learning_rate": 1e-4},
               {"steps": 4, "batch_size": 8, "learning_rate": 1e-4}),
    "score": ({"texts": 500, "validation": 100, "test": 311, "epochs": 3, "rounds": 5},
              {"texts": 32, "validation": 8, "test": 16, "epochs": 1, "rounds": 2}),
    "processes": ({"texts": 512, "epochs": 1, "batch_size": 32, "rounds": 5},
                  {"texts": 32, "epochs": 1, "batch_size": 8, "rounds": 2}),
    "card": ({"texts": 1024, "tokens": 512, "epochs": 3, "batch_size": 64, "rounds": 3},
             {"texts": 512, "tokens": 128, "epochs": 1, "batch_size": 16, "rounds": 1}),
}  # fmt: skip


def speed(race: Race, size: Size, work: Path) -> tuple[str, dict[str, Any]]:
    """Texts a second."""
    task, splits = shipped(WORRY, epochs=size["epochs"], batch_size=size["batch_size"])
    task = laid_out(work, task, some(splits, size["texts"], 8, 8), **DROPOUT)
    grouping = {"train_sampling_strategy": "group_by_length"}

    def trial(number: int) -> Jobs:
        short = {"arguments": {**grouping, "max_steps": size["trial"]}}
        return {f"trial, {word}": theirs(task, attention=word, **short) for word in ("sdpa", "eager")}

    tried = {row["name"].removeprefix("trial, "): row for row in race.run(trial, [-1]) if row["round"] < 0}
    tried = {word: rate(row) for word, row in tried.items() if "error" not in row}
    best = max(tried, key=tried.get, default="sdpa")

    switched = products() != "torch's own"
    names = [OURS, TRAINER, GROUPED, *([SWITCHED] if switched else [])]

    def jobs(number: int) -> Jobs:
        drawn = changed(task, seed=number)
        made = {
            OURS: ours(work, drawn),
            TRAINER: theirs(drawn),
            GROUPED: theirs(drawn, arguments=grouping, attention=best),
            SWITCHED: theirs(drawn, arguments=grouping, attention=best, products=True),
        }
        return {name: made[name] for name in names}

    rows = race.run(jobs, range(size["rounds"]))
    gains = {
        "times as fast": rate,
        "tokenising counted": partial(rate, tokenise=True),
        "by CPU time": partial(rate, per=CPU),
    }
    seen = ((rate, 2), (partial(rate, of=TOKENS), 0), (padding, 0))
    found = {
        name: {what: compared(rows, OURS, name, how) for what, how in gains.items()} for name in names[1:]
    }
    lines = [
        [
            name,
            *(shown(typical(rows, name, how), digits) for how, digits in seen),
            *map(shown, found.get(name, {}).values()),
        ]
        for name in names
    ]
    lines[0] += [""] * len(gains)
    head = ["", "texts a second", "tokens of text a second", "padding, % of what it computes",
            "minibert is so many times as fast", "tokenising counted", "by CPU time"]  # fmt: skip
    trials = ", ".join(f"{word} {x:.2f} texts a second" for word, x in tried.items())
    library = "another library than torch's own choice" if switched else "torch's own choice of library"
    facts = {"found": found, "attention": best, "trials": trials, "library": library}
    return table(head, lines), facts


def memory(race: Race, size: Size, work: Path) -> tuple[str, dict[str, Any]]:
    """Most memory over the idle process, and a step's time beside it."""
    if held() is None:
        raise Refused("memory is read from /proc/self/status, which this system has not")
    recompute, checkpoint = "minibert, recompute", "Trainer, checkpointing"
    task, splits = shipped(WORRY, epochs=1, batch_size=size["texts"])
    texts = [" ".join(splits.train.texts[i : i + 20]) for i in range(size["texts"] * size["steps"] + 8)]
    targets = np.random.default_rng(0).normal(size=len(texts)).tolist()
    places = {"train": slice(8, None), "validation": slice(4), "test": slice(4, 8)}
    parts = {name: (texts[which], targets[which]) for name, which in places.items()}
    weights = random_bert(work / "bert", size["layers"], size["width"])
    task = laid_out(work, task, parts, weights=weights, max_tokens=size["tokens"], **DROPOUT)

    def jobs(number: int) -> Jobs:
        return {
            OURS: ours(work, task, "plain"),
            TRAINER: theirs(task),
            recompute: ours(work, changed(task, recompute=True), "recompute"),
            checkpoint: theirs(task, arguments={"gradient_checkpointing": True}),
        }

    rows = race.run(jobs, range(size["rounds"]))
    gains = {"peak over idle": over("idle"), "peak over ready": over("ready"), "step": step_seconds}
    seen = [lambda row, what=what: row["memory"][what] for what in ("idle", "ready", "peak")]
    seen += gains.values()
    lines = [
        [name, *(shown(typical(rows, name, how), 2 if how is step_seconds else 0) for how in seen)]
        for name in (OURS, TRAINER, recompute, checkpoint)
    ]
    found = {
        f"{one} / {other}": {what: compared(rows, one, other, how) for what, how in gains.items()}
        for one, other in ((OURS, TRAINER), (recompute, checkpoint))
    }
    head = ["MB", "before the model", "before the first step", "peak", "peak over before the model",
            "peak over before the first step", "seconds a step"]  # fmt: skip
    text = table(head, lines) + "\n\n"
    text += table(
        ["ratio", *head[4:6], "a step's time"],
        [[pair, *map(shown, ratio.values())] for pair, ratio in found.items()],
    )
    budget = budget_of(task, config.read(Path(weights) / "config.json"), torch.device("cpu"))
    return text, {"found": found, "microbatch": f"{budget:,}"}


def losses(race: Race, size: Size, work: Path) -> tuple[str, dict[str, Any]]:
    """Every step's loss beside the reference's, and a step in micro-batches beside the step at once."""
    texts, epochs = size["steps"] * size["batch_size"] // 2, 2
    train = {"batch_size": size["batch_size"], "learning_rate": size["learning_rate"], "epochs": epochs}
    task, splits = shipped(NEWS, examples=0, **train)
    task = laid_out(work, task, some(splits, texts, 8, 8), dropout=0.0, attention_dropout=0.0)
    splits = data.load_splits(task, Path)
    new_model(task, splits, "cpu").save(work / "start")  # the head that the spec's seed gives to us, for both
    plan = Plan(
        texts, epochs, size["batch_size"], size["learning_rate"], order_seed=task.train.seeds["order"]
    )
    order = [place for step in range(plan.steps) for place in plan.places(step)]
    start = {"weights": str(work / "start"), "order": order}

    def jobs(number: int) -> Jobs:
        return {
            OURS: ours(work, task),
            "Trainer": theirs(task, splits.labels, **start),
            "plain loop": theirs(task, splits.labels, **start | {"what": "plain_loop"}),
            "micro-batches": ours(work, task, what="microbatches", budgets=[10**6, 800, 400, 200, 100]),
        }

    rows = {row["name"]: row for row in race.run(jobs, [0]) if "error" not in row}
    lines, found = [], {}
    for name in ("Trainer", "plain loop"):
        if {name, OURS} <= rows.keys():
            told = rows[name]["losses"]
            worst = found[name] = float(differences(rows[OURS]["losses"], told).max())
            within = "yes" if worst <= 1e-5 else "NO"
            lines.append([name, len(told), f"{told[0]:.4f}", f"{told[-1]:.4f}", f"{worst:.1e}", within])
    head = ["reference", "steps", "its first loss", "its last", "largest relative difference", "within 1e-5"]
    text = table(head, lines) + "\n\n"
    split = found["micro-batches"] = rows.get("micro-batches", {}).get("rows", [])
    head = ["micro-batches", "loss, relative difference", "gradient, of the largest", "within 1e-6"]
    text += table(
        head,
        [
            [x["parts"], f"{x['loss']:.1e}", f"{x['gradient']:.1e}",
             "yes" if max(x["loss"], x["gradient"]) <= 1e-6 else "NO"]
            for x in split
        ],
    )  # fmt: skip
    return text, {"found": found}


def score(race: Race, size: Size, work: Path) -> tuple[str, dict[str, Any]]:
    """Pearson r and RMSE on the test part, seed by seed."""

    def jobs(seed: int) -> Jobs:
        task, splits = shipped(WORRY, epochs=size["epochs"], seed=seed)
        (folder := work / str(seed)).mkdir()
        parts = some(splits, size["texts"], size["validation"], size["test"])
        task = laid_out(folder, task, parts, **DROPOUT)
        return {OURS: ours(folder, task, predict=True), TRAINER: theirs(task, predict=True)}

    rows = race.run(jobs, range(size["rounds"]))
    truth = {row["round"]: row["truth"] for row in rows if row["name"] == OURS and "error" not in row}
    rows = [row for row in rows if row["round"] in truth]

    def scored(name: str, side: str) -> dict[int, float]:
        return by_round(
            rows, side,
            lambda row: metrics.value(name, np.array(truth[row["round"]]), np.array(row["predictions"])),
        )  # fmt: skip

    found, means, columns = {}, ["mean"], []
    for name in ("pearson", "rmse"):
        one, other = scored(name, OURS), scored(name, TRAINER)
        gaps = {seed: one[seed] - other[seed] for seed in one if seed in other}
        found[name] = mean(gaps.values())
        columns += [one, other, gaps]
        means += [shown((mean(x.values())[0], np.nan, np.nan), 4) for x in (one, other)]
        means.append(shown(found[name], 4))
    lines = [
        [seed, *(f"{column[seed]:.4f}" if seed in column else "-" for column in columns)]
        for seed in range(size["rounds"])
    ]
    kept = [by_round(rows, side, lambda row: row["best_epoch"]) for side in (OURS, TRAINER)]
    lines = [[*line, *(column.get(line[0], "-") for column in kept)] for line in lines]
    head = ["seed", "Pearson r, minibert", "Trainer", "difference", "RMSE, minibert", "Trainer", "difference",
            "epoch kept, minibert", "Trainer"]  # fmt: skip
    return table(head, [*lines, [*means, "", ""]]), {"found": found}


def processes(race: Race, size: Size, work: Path) -> tuple[str, dict[str, Any]]:
    """Two processes of one thread beside one."""
    if (os.cpu_count() or 1) < 2:
        raise Refused("two processes need two cores")
    task, splits = shipped(WORRY, epochs=size["epochs"], batch_size=size["batch_size"])
    (few := work / "few").mkdir()
    plain = some(splits, min(size["texts"], 4 * size["batch_size"]), 8, 8)
    plain = laid_out(few, task, plain, dropout=0.0, attention_dropout=0.0)
    task = laid_out(work, task, some(splits, size["texts"], 8, 8), **DROPOUT)
    names, bare = {"one process": 1, "two processes": 2}, ", no dropout"

    def alike(number: int) -> Jobs:
        return {name + bare: ours(few, plain, what="launch", processes=n) for name, n in names.items()}

    def jobs(number: int) -> Jobs:
        drawn = changed(task, seed=number)
        return {name: ours(work, drawn, what="launch", processes=n) for name, n in names.items()}

    race.run(alike, [-1])
    rows = race.run(jobs, range(size["rounds"]))
    told = [by_round(rows, name + bare, lambda row: row["losses"]) for name in names]
    gaps = differences(told[1][-1], told[0][-1]) if all(told) else np.array([np.nan])
    gain = compared(rows, "two processes", "one process", rate)
    lines = [
        [name, shown(typical(rows, name, rate)), shown(gain) if n > 1 else ""] for name, n in names.items()
    ]
    text = table(["", "texts a second", "so many times as fast as one"], lines)
    text += f"\n\nLargest relative difference of {len(gaps)} steps' losses without dropout: {gaps.max():.1e}."
    return text, {"found": {"ratio": gain, "losses": float(gaps.max())}}


CARD_SIZES = {"BERT-base": (12, 768), "RoBERTa-large": (24, 1024)}  # layers, width
COMPILED = "minibert, compiled"


def card(race: Race, size: Size, work: Path) -> tuple[str, dict[str, Any]]:
    """Tokens a second and share of a card's peak, in bfloat16, for encoders of BERT-base and RoBERTa-large size."""
    if not torch.cuda.is_available() and not race.render:
        raise Refused("this race is one on a card, and torch finds none")
    tasks = {}
    for label, (layers, width) in CARD_SIZES.items():
        (folder := work / label).mkdir()
        task, splits = shipped(WORRY, epochs=size["epochs"], batch_size=size["batch_size"])
        weights = random_bert(folder / "bert", layers, width)
        task = laid_out(folder, task, some(splits, size["texts"], 8, 8), weights=weights,
                        max_tokens=size["tokens"], **DROPOUT)  # fmt: skip
        tasks[label] = changed(task, device="cuda", dtype="bfloat16")

    def each(made: Callable[[TaskSpec, str], Job], **train: Any) -> Job:
        """A job of all sizes, one after the other in one process."""
        parts = {label: made(changed(task, **train), label) for label, task in tasks.items()}
        module = next(iter(parts.values()))[0]
        return module, {"what": "each", "device": "cuda", "jobs": {k: job for k, (_, job) in parts.items()}}

    def jobs(number: int) -> Jobs:
        grouping = {"train_sampling_strategy": "group_by_length"}
        return {
            OURS: each(lambda task, label: ours(work / label, task), seed=number),
            TRAINER: each(lambda task, label: theirs(task), seed=number),
            GROUPED: each(lambda task, label: theirs(task, arguments=grouping), seed=number),
            COMPILED: each(lambda task, label: ours(work / label, task, "compiled"), seed=number,
                           compile="reduce-overhead"),
        }  # fmt: skip

    whole = race.run(jobs, range(size["rounds"]))
    text, found = [], {}
    for label, (layers, width) in CARD_SIZES.items():
        rows = [row | row["jobs"][label] if "jobs" in row else row for row in whole]
        mine = next((row for row in rows if row["name"] == OURS and "error" not in row), None)
        if mine is None:
            continue
        names = [name for name in (OURS, COMPILED, TRAINER, GROUPED) if by_round(rows, name, rate)]
        shares = {
            f"% of {what}": partial(peak_share, flops=mine["flops"], peak=mine["peak"][of])
            for of, what in (("published", "the published peak"), ("products", "the best product in the run"))
            if mine["peak"][of]
        }
        gains = {name: compared(rows, OURS, name, partial(rate, of=TOKENS)) for name in names[1:]}
        found[label] = {"kernel": mine["kernel"], "peak": mine["peak"], "gains": gains}
        lines = [
            [
                name,
                shown(typical(rows, name, partial(rate, of=TOKENS)), 0),
                *(shown(typical(rows, name, how), 1) for how in shares.values()),
                shown(typical(rows, name, padding), 0),
                shown(typical(rows, name, lambda row: row["card memory"] / 1e9), 1),
                shown(gains[name]) if name in gains else "",
            ]
            for name in names
        ]
        head = [f"{label} size: {layers} layers, {width} wide", "tokens of text a second", *shares,
                "padding, %", "GB on the card", "minibert, as it comes, is so many times as fast"]  # fmt: skip
        missing = ", ".join({OURS, COMPILED, TRAINER, GROUPED} - {*names})
        said = f"Attention of minibert: `{mine['kernel']}`." + (f" Not run: {missing}." if missing else "")
        text.append(f"{table(head, lines)}\n\n{said}")
    return "\n\n".join(text), {"found": found}


RACES: dict[str, Callable[[Race, Size, Path], tuple[str, dict[str, Any]]]] = {
    "speed": speed, "memory": memory, "losses": losses, "score": score, "processes": processes,
    "card": card,
}  # fmt: skip


def main() -> int:
    """Run one race; 1 if a contestant failed, 2 if it can't be run as asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("race", choices=RACES)
    parser.add_argument(
        "--quick", action="store_true", help="a few texts, to try it; its numbers mean nothing"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each contestant (all cores)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=NUMBER", help="another size: rounds=7"
    )
    parser.add_argument("--out", type=Path, help="folder (results/, with --quick results/quick/)")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--render", action="store_true", help="measure nothing, make the tables anew")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a contestant does not outlive its race
    size = {"rounds": 1, **SIZES[asked.race][asked.quick]}
    size["threads"] = 1 if asked.race == "processes" else asked.threads
    for word in asked.set:
        key, _, value = word.partition("=")
        if key not in size or not value.isdecimal():
            parser.error(f"--set {word}: a whole number for one of {', '.join(size)}")
        size[key] = int(value)
    folder = asked.out or HERE / "results" / ("quick" if asked.quick else "")
    file = folder / f"train_{asked.race}.jsonl"
    try:
        if asked.fresh and not asked.render:
            file.unlink(missing_ok=True)
        race = Race(file, size, asked.render)
        with tempfile.TemporaryDirectory() as work:
            text, facts = RACES[asked.race](race, race.settings, Path(work))
    except (Refused, MiniBertError) as problem:
        print(problem, file=sys.stderr)
        return 2
    title, how = PAGES[asked.race]
    print(race.write(title, f"{text}\n\n{how.format(**race.settings, **facts)}", **facts))
    say(f"written: {file.with_suffix('.md')}")
    return 1 if race.failures else 0


if __name__ == "__main__":
    sys.exit(main())
