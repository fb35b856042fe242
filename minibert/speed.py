"""Where a training step's time goes, and how many tokens at once go fastest: measured on the task's own texts.

In:  a TaskSpec.   Out: Tuning, Explained; and their tables as text. Nothing is written, no weight changes.

What is measured here is told and goes no further: a number that a clock gave reaches a training only once
a person has written it into the spec.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from . import catalogue, compiled, device, system
from .data import Splits
from .errors import ConfigError, OutOfMemory
from .flops import training_flops
from .learner import Learner
from .model import Model
from .outset import budget_of, learner_of, number_format, plan_of
from .progress import Bar
from .run import look_ahead
from .spec import TaskSpec
from .tokenize import Encoded
from .train import State, Step, train

BUDGETS = (1024, 2048, 4096, 8192, 16384, 32768)  # tokens at once
ROUNDS = 3  # of `tune`: each budget in turn
CLOSE = 0.97  # of the best speed is as good, and the smaller takes less memory
PROFILED = 4  # steps of `explain`

# Part of a step -> the names by which torch's profiler knows its operations, or how they begin.
PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear"),
    "attention": ("Attention", "Tiled", "aten::_scaled_dot_product", "aten::_softmax", "aten::_flash", "aten::_efficient"),
    "dropout": ("Dropped", "aten::bernoulli_", "aten::native_dropout"),
    "activation": ("aten::gelu", "aten::relu", "aten::silu", "aten::tanh"),
    "normalising": ("aten::native_layer_norm",),
    "embeddings": ("aten::embedding", "aten::index_select", "aten::index_add", "aten::gather"),
    "sums (biases, residuals, gradients)": ("aten::add", "aten::sum"),
    "optimizer and clipping": ("aten::_fused_adam", "aten::linalg_vector_norm", "aten::_foreach_norm"),
    "copies and zeros": ("aten::copy_", "aten::fill_", "aten::zero_", "aten::cat", "aten::clone"),
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """What one budget came to. tokens_per_second 0: memory ran out."""

    budget: int
    tokens_per_second: float
    low: float
    high: float


@dataclass(frozen=True)
class Tuning:
    """Budgets tried; `best` is the smallest that is as good as the fastest."""

    trials: tuple[Trial, ...]
    present: int
    best: int


@dataclass(frozen=True)
class Explained:
    """A step's time by part, in seconds, and its arithmetic beside what the machine can do."""

    seconds: float  # of a step
    tokens: int  # of a step
    texts: int
    parts: dict[str, float]
    rate: float  # of its arithmetic, floating-point operations per second; 0 where some weights rest
    limit: float  # the same of matrix products alone
    place: str


def measured(task: TaskSpec, tuned: bool, explained: bool) -> str:
    """What was asked for, as text. The data and the weights are read as for a run; nothing is written."""
    task = task.absolute({*catalogue.weights(), *catalogue.data_sets()})
    if system.processes()[1] > 1:
        raise ConfigError("speed is measured in one process: leave torchrun out")
    splits, model, encoded = look_ahead(task)
    encoded.wait()  # a thread that tokenizes is not to be measured
    ready = task, splits[0], model, encoded["train"]
    word, tables = number_format(task, model), []
    with device.memory_named(), device.float32_as(word), compiled.problems_named(task.train.compile):
        if tuned:
            tables.append(tuning_words(tune(*ready)))
        if explained:
            tables.append(explained_words(explain(*ready)))
    return "\n\n".join(tables)


def idle_steps(task: TaskSpec, splits: Splits, learner: Learner, budget: int) -> Iterator[Step]:
    """The task's own training steps, without end, at a rate of 0: all is computed, and no weight changes."""
    own = plan_of(task, splits, learner.model)
    plan = replace(own, learning_rate=0.0, epochs=10**6, tokens_per_microbatch=budget)
    lengths, state = learner.encoded.lengths.tolist(), State.new(learner.model, plan)
    return train(learner.model, learner, lengths, plan, state, prepare=learner.prepare, read_every=1)


def tune(task: TaskSpec, splits: Splits, model: Model, encoded: Encoded) -> Tuning:
    """Try budgets in turn, round after round, on the same step."""
    learner, present = learner_of(task, splits, model, encoded), budget_of(task, model.config, model.device)
    speeds = {budget: [] for budget in sorted({*budgets(task, encoded), present})}
    with Bar("tuning", ROUNDS * len(speeds), "trials") as bar:
        for _ in range(ROUNDS):
            for budget, found in speeds.items():
                found.append(speed_of(idle_steps(task, splits, learner, budget), budget))
                bar.advance(1, f"{budget:,} tokens at once: {found[-1]:,.0f} tokens/s")
    trials = tuple(
        Trial(budget, statistics.median(found), min(found), max(found)) for budget, found in speeds.items()
    )
    fastest = max(trial.tokens_per_second for trial in trials)
    if not fastest:
        raise OutOfMemory(
            f"memory is too short for {trials[0].budget:,} tokens at once", "Lower [model] max_tokens."
        )
    best = next(trial.budget for trial in trials if trial.tokens_per_second >= CLOSE * fastest)
    return Tuning(trials, present, best)


def budgets(task: TaskSpec, encoded: Encoded) -> list[int]:
    """Those of BUDGETS that split a step differently: the first that holds a whole step is the last."""
    step = task.train.batch_size * float(encoded.lengths.mean())
    largest = next((budget for budget in BUDGETS if budget >= 1.2 * step), BUDGETS[-1])
    return [budget for budget in BUDGETS if budget <= largest]


def speed_of(steps: Iterator[Step], budget: int) -> float:
    """Tokens per second of the second step, behind the first's allocations; 0 where memory is too short for
    so many tokens at once."""
    with contextlib.closing(steps):
        try:
            _, second = itertools.islice(steps, 2)
        except OutOfMemory:
            return 0.0
    if second.tokens_per_microbatch < budget:
        return 0.0
    return second.tokens / second.seconds


def explain(task: TaskSpec, splits: Splits, model: Model, encoded: Encoded) -> Explained:
    """Profile some steps after a warm-up, and measure what the machine's matrix products reach."""
    learner, plan = learner_of(task, splits, model, encoded), plan_of(task, splits, model)
    on_card = model.device.type == "cuda"
    steps = idle_steps(task, splits, learner, plan.tokens_per_microbatch)
    with contextlib.closing(steps), Bar("explaining", 2 + 2 * PROFILED, "steps") as bar:

        def take(count: int) -> list[Step]:
            return [(step, bar.advance(1))[0] for step in itertools.islice(steps, count)]

        os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler's own chatter
        take(2)
        plain = take(PROFILED)  # which give the time; the profiler slows what it watches
        start = time.perf_counter()
        with profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]
        ) as seen:
            take(PROFILED)
        watched = time.perf_counter() - start
    seconds = statistics.median(step.seconds for step in plain)
    times: Counter[str] = Counter()
    for event in seen.events():
        if event.device_type == DeviceType.CPU:  # with what it started on a card
            own = event.self_device_time_total if on_card else event.self_cpu_time_total
            times[whole_of(event)] += own / 1e6
    places = [place for step in plain for place in plan.places(step.step - 1)]
    lengths = encoded.piece_lengths(places)
    whole = not (task.train.freeze_layers or task.train.lora_rank)  # what rests has no formula here
    return Explained(
        seconds=seconds,
        tokens=sum(step.tokens for step in plain) // PROFILED,
        texts=sum(step.texts for step in plain) // PROFILED,
        parts={name: share * seconds for name, share in shares(times, watched).items()},
        rate=whole * training_flops(model.config, lengths) / sum(step.seconds for step in plain),
        limit=product_limit(model, learner.dtype or learner.number),
        place=f"{model.device}, {torch.get_num_threads()} threads",
    )


def whole_of(event: FunctionEvent) -> str:
    """The name of an operation, or of the attention or dropout that it is an inner part of."""
    outer, name = event, event.name
    while outer is not None:
        if outer.name.startswith((*PARTS["attention"], *PARTS["dropout"])):
            name = outer.name
        outer = outer.cpu_parent
    return name


def shares(times: dict[str, float], wall: float) -> dict[str, float]:
    """Seconds by operation, of `wall` seconds -> share of the time by part, the largest first."""
    found = dict.fromkeys(PARTS, 0.0)
    rest = 0.0
    for name, seconds in times.items():
        part = next((part for part, names in PARTS.items() if name.startswith(names)), None)
        if part:
            found[part] += seconds
        else:
            rest += seconds
    ordered = sorted(found.items(), key=lambda item: -item[1])
    out = {**dict(ordered), "other operations": rest, "Python, and waiting": wall - sum(times.values())}
    return {name: max(0.0, seconds) / wall for name, seconds in out.items()}


def product_limit(model: Model, dtype: torch.dtype) -> float:
    """Operations per second of matrix products alone: the best that this machine makes of the model's own
    shapes, and of large square ones."""
    D, F = model.config.hidden_width, model.config.ffn_width
    shapes = ((4096, D, F), (4096, F, D), (2048, 2048, 2048))
    return max(product_rate(*shape, dtype, model.device) for shape in shapes)


def product_rate(n: int, k: int, m: int, dtype: torch.dtype, place: torch.device, repeats: int = 7) -> float:
    """Operations per second of (n, k) times (k, m): the median of some."""
    left, right = torch.randn(n, k, device=place).to(dtype), torch.randn(k, m, device=place).to(dtype)
    taken = []
    for _ in range(repeats):
        device.wait(place)
        start = time.perf_counter()
        left @ right
        device.wait(place)
        taken.append(time.perf_counter() - start)
    return 2 * n * k * m / statistics.median(taken)


def tuning_words(found: Tuning) -> str:
    """A table, and what to write into the spec."""
    lines = ["tokens at once   tokens/s   (from - to)"]
    for trial in found.trials:
        words = f"{trial.tokens_per_second:10,.0f}   ({trial.low:,.0f} - {trial.high:,.0f})"
        marks = [
            word for word, at in (("now", found.present), ("proposed", found.best)) if at == trial.budget
        ]
        lines.append(
            f"{trial.budget:14,} {words if trial.tokens_per_second else 'memory ran out':24} {', '.join(marks)}"
        )
    if found.best == found.present:
        return "\n".join([*lines, "What the spec says is as fast as any."])
    return "\n".join([*lines, f"Write into the spec:  [train] tokens_per_microbatch = {found.best}"])


def explained_words(found: Explained) -> str:
    """A table of a step's time, and the share of what the machine can do."""
    pace = f"{found.tokens / found.seconds:,.0f} tokens/s, {found.texts / found.seconds:,.1f} texts/s"
    lines = [
        f"a step of {found.texts} texts, {found.tokens:,} tokens: {found.seconds:.3f} s; {pace} ({found.place})"
    ]
    for name, seconds in found.parts.items():
        lines.append(f"  {name:36} {seconds:8.3f} s {seconds / found.seconds:6.1%}")
    if found.rate:
        lines.append(
            f"The whole step does {found.rate / 1e9:,.0f} GFLOP/s, {found.rate / found.limit:.0%} of the "
            f"{found.limit / 1e9:,.0f} that this machine's matrix products reach alone."
        )
    return "\n".join(lines)
