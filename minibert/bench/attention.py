"""`minibert bench attention`: kernels x shapes x lengths x dtypes x dropout x directions, a row for each.

In:  Settings.   Out: what stands in attention.json:

    minibert, verb, settings
    conditions   the machine, and what else it did (conditions.py)
    measured     [so many, of so many] groups of cases: fewer if it was interrupted
    peak         {"float32": {"tflops": x}, "gbps": y}: the best that this machine did just before and after
    rows         kernel, heads, width, lengths {name, texts, tokens, longest, mean, padding_share}, dtype,
                 dropout, direction; outcome: ok, unsupported, out_of_memory or error, and why;
                 latency {p20, p50, p80, min, cv, n} in ms over rounds; walltime s; flops, tflops, peak_share;
                 bytes, gbps; peak_mem bytes; compile_time s; mask_build ms; errors {output, dq, dk, dv} in units of
                 plain PyTorch's; verdict PASS, FAIL or ""; speedup {value, low, high} over `baseline`, or null;
                 rounds [ms]; label

A kernel that is wrong has no speed-up; nor has one whose baseline is wrong or didn't run. What the first
call took beyond a usual one, and building the kernel, is compile_time; what a layout costs that no call has
seen yet (groups, masks) is mask_build: an encoder pays it once a batch, not once a layer.
A kernel's function may carry `label`, a text, or a function that is given a call as it is timed and gives one:
what is said of it beside its name.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._functorch.config

from .. import __version__, kernels
from .. import device as devices
from ..errors import ConfigError, nearest
from ..kernels import Kernel
from . import conditions, errors, memory, work
from .case import DIRECTIONS, Case, Inputs, outcome, prepared
from .clock import ROUNDS, WARM, Contestant, Timed, race
from .lengths import BUDGET, drawn
from .ratios import speedup

MASKS = 5  # fresh layouts that mask_build is the median of
EMPTY: dict[str, Any] = {
    "outcome": "ok", "why": "", "latency": None, "walltime": None, "flops": None, "tflops": None,
    "peak_share": None, "bytes": None, "gbps": None, "peak_mem": None, "compile_time": None,
    "mask_build": None, "errors": {}, "verdict": "", "speedup": None, "baseline": "", "rounds": [], "label": "",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What is measured. kernels: () is every registered one; seconds: of timing for each case, beyond the least."""

    kernels: tuple[str, ...] = ()
    shapes: tuple[tuple[int, int], ...] = ((12, 32), (12, 64), (16, 64))
    lengths: tuple[str, ...] = ("fixed:128", "uniform:512", "zipf:512", "one:1024")
    dtypes: tuple[str, ...] = ("float32",)
    dropouts: tuple[float, ...] = (0.0,)
    directions: tuple[str, ...] = DIRECTIONS
    baseline: str = "sdpa"
    device: str = "cpu"
    threads: int = 0
    rounds: int = ROUNDS
    seconds: float = 10.0
    warm: float = WARM
    tokens: int = 0
    weights: str = "all-MiniLM-L6-v2"
    flush: bool = False
    memory: bool = True
    busy: bool = False
    seed: int = 0
    file: Path | None = None

    def quick(self) -> Settings:
        """The smallest that still says something: one shape, short texts, the kernels that `auto` would ask."""
        kind = devices.pick(self.device).type
        usual = kernels.CARD if kind == "cuda" else kernels.DROPPING
        able = tuple(name for name in usual if not kernels.KERNELS[name].why_not(device=kind))
        return dataclasses.replace(
            self, kernels=self.kernels or able, shapes=self.shapes[:1], lengths=("zipf:128",),
            rounds=min(self.rounds, 10), seconds=1.0, warm=0.05, tokens=1024, memory=False,
        )  # fmt: skip

    def checked(self) -> Settings:
        """The same with every choice made; ConfigError for what can't be."""
        file = kernels.register_file(self.file) if self.file else ()
        names = self.kernels or tuple(kernels.KERNELS)
        for name in (*names, self.baseline):
            if name not in kernels.KERNELS:
                raise ConfigError(
                    f"there is no kernel {name!r}{nearest(name, kernels.KERNELS)}",
                    f"Known: {', '.join(kernels.KERNELS)}.",
                )
        for word in self.dtypes:
            devices.number(word)
        for word in self.directions:
            if word not in DIRECTIONS:
                raise ConfigError(
                    f"--direction {word}: write {', '.join(DIRECTIONS)}{nearest(word, DIRECTIONS)}"
                )
        if any(not 0 <= p < 1 for p in self.dropouts):
            raise ConfigError("--dropout is a share from 0 up to, not including, 1")
        if any(min(shape) < 1 for shape in self.shapes):
            raise ConfigError("--shapes: heads and width are at least 1")
        device = str(devices.pick(self.device))
        return dataclasses.replace(
            self,
            kernels=tuple(dict.fromkeys((*names, *file, self.baseline))),
            device=device,
            threads=self.threads or torch.get_num_threads(),
            tokens=self.tokens or BUDGET.get(torch.device(device).type, BUDGET["cpu"]),
        )

    def groups(self) -> Iterator[list[Case]]:
        """The cases; those that differ in direction alone stand together."""
        for word in self.lengths:
            lengths = drawn(word, self.tokens, self.seed, self.weights)
            for heads, width in self.shapes:
                for dtype in self.dtypes:
                    for p in self.dropouts:
                        yield [Case(lengths, heads, width, dtype, p, d, self.device) for d in self.directions]


def words(text: str) -> tuple[str, ...]:
    """ "a, b" as ("a", "b")."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def shapes(text: str) -> tuple[tuple[int, int], ...]:
    """ "12x32,16x64" as ((12, 32), (16, 64)); ConfigError for what is none."""
    found = [word.split("x") for word in words(text)]
    if not found or any(len(pair) != 2 or not all(n.isdecimal() for n in pair) for pair in found):
        raise ConfigError(f"--shapes {text}: write heads x width, as in 12x32,12x64")
    return tuple((int(heads), int(width)) for heads, width in found)


def shares(text: str) -> tuple[float, ...]:
    """ "0,0.1" as (0.0, 0.1); ConfigError for what is none."""
    try:
        return tuple(float(word) for word in words(text))
    except ValueError:
        raise ConfigError(f"--dropout {text}: write shares, as in 0,0.1") from None


def run(settings: Settings, tell: Callable[[str], None] = lambda words: None) -> dict[str, Any]:
    """Measure all of it; `tell` hears of each case before it begins."""
    settings = settings.checked()
    device = torch.device(settings.device)
    torch.set_num_threads(settings.threads)
    groups = list(settings.groups())  # so that a bad word is refused before anything is measured
    for warning in conditions.check_idle(device, settings.busy):
        tell(warning)
    watch = conditions.Watch(device)
    tell("the machine's peaks")
    before = work.peak(settings.dtypes, device)
    rows: list[dict[str, Any]] = []
    done = 0
    try:
        # Buffers that a compiled backward pass takes over can't be used twice, as timing it alone needs.
        with torch._functorch.config.patch(donated_buffer=False):
            for cases in groups:
                case = cases[0]
                drop = f", dropout {case.dropout:g}" if case.dropout else ""
                tell(
                    f"{done + 1} of {len(groups)}: {case.heads}x{case.width}, {case.lengths.name} "
                    f"({case.lengths.tokens:,} tokens), {case.dtype}{drop}"
                )
                rows += measured(cases, settings)
                done += 1
    except KeyboardInterrupt:
        if not done:
            raise
        tell(f"interrupted: kept is what {done} of {len(groups)} gave")
    peak = work.higher(before, work.peak(settings.dtypes, device))
    for row in rows:
        if row["tflops"] is not None:
            row["peak_share"] = row["tflops"] / peak[row["dtype"]]["tflops"]
    said = dataclasses.asdict(settings) | {"file": str(settings.file or "")}
    return {
        "minibert": __version__,
        "verb": "attention",
        "settings": said | {"caches": "flushed before every call" if settings.flush else "warm"},
        "conditions": {**conditions.machine(device), **watch.ended()},
        "peak": peak,
        "measured": [done, len(groups)],
        "rows": rows,
    }


def measured(cases: Sequence[Case], settings: Settings) -> list[dict[str, Any]]:
    """The rows of cases that differ in direction alone: memory, then the races, then the errors."""
    rows = {(name, case.direction): empty_row(name, case) for case in cases for name in settings.kernels}
    built = {}
    for name in settings.kernels:
        kernel, start = kernels.KERNELS[name], time.perf_counter()
        for case in cases:
            why = case.why_not(kernel)
            if why := why or kernel.at(torch.device(case.device).type).build(True):
                rows[name, case.direction] |= {"outcome": "unsupported", "why": why}
        built[name] = time.perf_counter() - start
    if settings.memory:
        hunger(cases, rows, settings.file)
    for case in cases:
        raced(
            case,
            [row for (_, direction), row in rows.items() if direction == case.direction],
            settings,
            built,
        )
        built = dict.fromkeys(built, 0.0)  # paid by the first direction alone
    for name in settings.kernels:
        judged(kernels.KERNELS[name], [row for (n, _), row in rows.items() if n == name], cases)
    for case in cases:
        compared(
            [row for (_, direction), row in rows.items() if direction == case.direction], settings.baseline
        )
    return list(rows.values())


def empty_row(name: str, case: Case) -> dict[str, Any]:
    """A row that knows what it is about."""
    about = {"kernel": name, "heads": case.heads, "width": case.width, "lengths": case.lengths.facts()}
    return {**about, "dtype": case.dtype, "dropout": case.dropout, "direction": case.direction, **EMPTY}


def hunger(cases: Sequence[Case], rows: dict[tuple[str, str], dict[str, Any]], file: Path | None) -> None:
    """Fill in peak_mem. What doesn't survive this alone isn't timed beside others."""
    found: dict[tuple[str, bool], memory.Used] = {}
    for (name, direction), row in rows.items():
        if row["outcome"] == "ok":
            case = next(case for case in cases if case.direction == direction)
            key = (name, case.gradients)  # "backward" takes what "both" takes
            used = found[key] if key in found else found.setdefault(key, memory.peak(name, case, file))
            row |= {"peak_mem": used.bytes, "outcome": used.outcome, "why": used.why}


def raced(case: Case, rows: list[dict[str, Any]], settings: Settings, built: dict[str, float]) -> None:
    """Time the kernels of these rows against each other, and fill in what came of it."""
    able = {row["kernel"]: row for row in rows if row["outcome"] == "ok"}
    layouts = {name: case.layout() for name in able}  # each its own, so that nobody finds another's notes
    contestants = [Contestant(name, prepared(kernels.KERNELS[name], case, layouts[name])) for name in able]
    timed = race(
        contestants, case.inputs, device=case.device, rounds=settings.rounds, seconds=settings.seconds,
        flush=settings.flush, warm=settings.warm, seed=settings.seed,
    )  # fmt: skip
    shape = (case.lengths.texts, case.heads, case.width)
    operations = work.flops(*shape, case.direction)
    moved = work.moved(*shape, devices.number(case.dtype).itemsize, case.direction)
    for name, row in able.items():
        one = timed[name]
        row |= {"walltime": one.spent, "flops": operations, "bytes": moved}
        if one.problem:
            row["outcome"], row["why"] = outcome(one.problem)
            continue
        row["latency"], row["rounds"] = latency(one), list(one.rounds.values())
        seconds = row["latency"]["p50"] / 1e3
        row |= {
            "tflops": operations / seconds / 1e12,
            "gbps": moved / seconds / 1e9,
            "compile_time": built[name] + max(0.0, one.first - seconds),
            "mask_build": mask_build(kernels.KERNELS[name], case) if layouts[name].memo else 0.0,
        }
        label = getattr(kernels.KERNELS[name].fn, "label", "")
        if callable(label):
            label = label(prepared(kernels.KERNELS[name], case, layouts[name])(case.inputs(0)))
        row["label"] = label


def latency(timed: Timed) -> dict[str, float]:
    """Of a call, in ms, over rounds."""
    found = np.array(list(timed.rounds.values()))
    p20, p50, p80 = np.quantile(found, [0.2, 0.5, 0.8]).tolist()
    spread = float(found.std(ddof=1) / found.mean()) if len(found) > 1 else 0.0
    return {"p20": p20, "p50": p50, "p80": p80, "min": float(found.min()), "cv": spread, "n": len(found)}


def mask_build(kernel: Kernel, case: Case) -> float:
    """ms that a call on a layout takes longer which no call has seen: the median of some, not below 0."""
    forward, device = dataclasses.replace(case, direction="forward"), torch.device(case.device)
    inputs: Inputs = case.inputs(0)
    found = []
    for _ in range(MASKS):
        call = prepared(kernel, forward, case.layout())(inputs)
        times = []
        for _ in range(2):
            devices.wait(device)
            start = time.perf_counter()
            call()
            devices.wait(device)
            times.append(time.perf_counter() - start)
        found.append(1e3 * (times[0] - times[1]))
    return max(0.0, statistics.median(found))


def judged(kernel: Kernel, rows: list[dict[str, Any]], cases: Sequence[Case]) -> None:
    """Fill in how wrong a kernel is on these texts, if it ran on them at all; alike for every direction."""
    rows = [row for row in rows if row["outcome"] == "ok"]
    if not rows:
        return
    case, dtype = cases[0], devices.number(cases[0].dtype)
    try:
        found, words = errors.ratios(
            kernel, case.lengths.texts, case.heads, case.width, dtype, torch.device(case.device),
            case.inputs(0).dropout,
        )  # fmt: skip
    except Exception as problem:
        for row in rows:
            row["outcome"], row["why"] = outcome(problem)
        return
    for row in rows:
        label = ", ".join(word for word in (row["label"], words) if word)
        row |= {"errors": found, "verdict": errors.verdict(found), "label": label}


def compared(rows: list[dict[str, Any]], baseline: str) -> None:
    """Fill in the speed-ups of one case; of what is right and ran, over a baseline that is and did."""
    base = next(row for row in rows if row["kernel"] == baseline)
    for row in rows:
        row["baseline"] = baseline
        if all(one["outcome"] == "ok" and one["verdict"] == "PASS" for one in (row, base)):
            found = speedup(*(dict(enumerate(one["rounds"])) for one in (row, base)))
            row["speedup"] = dataclasses.asdict(found) if found else None
