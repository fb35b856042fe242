"""What is to be run: one task with several seeds, or with several settings, each with every seed.

In:  a TaskSpec, how many seeds, and words such as "learning_rate=1e-5,2e-5".
Out: Plan, every spec of it checked; all that is wrong is told in one error, before anything runs.

A seed moves what `[train] seed` always moves: the new head, the order, dropout, and which texts are drawn to
learn from. It does not move what is tested: where test rows are drawn from a table, all seeds share the spec's.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .. import spec
from ..errors import ConfigError, nearest
from ..resume import FREE
from ..spec import TaskSpec

# Keys that can't be swept, and why.
REFUSED = {
    "task.name": "a name changes nothing that is learned",
    "task.kind": "another kind is another task",
    "train.seed": "choosing among seeds is no finding; --seeds 5 runs seeds 0 to 4 and says how far scores spread",
    "train.split_seed": "each setting would be tested on other texts",
    "baseline.kind": "the baseline changes nothing that is learned",
} | {f"train.{name}": "it changes nothing that is learned" for name in FREE}
# Keys that do nothing unless another is set: two specs that differ in no other are one.
NEEDED: dict[str, Callable[[TaskSpec], bool]] = {
    "train.lora_alpha": lambda task: task.train.lora_rank > 0,
    "model.stride": lambda task: task.model.truncation == "window",
    "model.max_windows": lambda task: task.model.truncation == "window",
}


@dataclass(frozen=True)
class Setting:
    """One point of the grid: the swept keys' values ({} where nothing is swept), and the spec with them."""

    values: dict[str, Any]
    task: TaskSpec

    @property
    def name(self) -> str:
        """For people: learning_rate=1e-5, batch_size=8."""
        return ", ".join(f"{short(key)}={spec.brief(value)}" for key, value in self.values.items())


@dataclass(frozen=True)
class Plan:
    """Settings and seeds. `swept`: key -> its values; `folders`: of each setting, below the plan's own."""

    task: TaskSpec
    seeds: tuple[int, ...]
    swept: dict[str, list[Any]]
    settings: tuple[Setting, ...]
    folders: tuple[str, ...]

    def runs(self) -> Iterator[tuple[int, int]]:
        """(which setting, which seed) in their order: each setting once before any has its second seed."""
        for seed in self.seeds:
            for place in range(len(self.settings)):
                yield place, seed

    def folder(self, place: int, seed: int) -> str:
        """A run's folder, below the plan's own."""
        return f"{self.folders[place]}/seed-{seed}".lstrip("/")

    def spec(self, place: int, seed: int) -> TaskSpec:
        """The spec of one run."""
        task = self.settings[place].task
        drawn = task.data.split or task.data.folds
        fixed = {"split_seed": task.train.seeds["split"]} if drawn else {}
        return dataclasses.replace(task, train=dataclasses.replace(task.train, seed=seed, **fixed))


def make_plan(task: TaskSpec, seeds: int | None, words: Sequence[str], known: Collection[str] = ()) -> Plan:
    """From what the command line says. ConfigError with every problem; `known`: names of assets."""
    problems = (
        [f"--seeds {seeds}: 2 or more have a spread; leave it out"] if seeds is not None and seeds < 2 else []
    )
    swept: dict[str, list[Any]] = {}
    for word in words:
        key, values, problem = read_sweep(word, task)
        if not problem and key in swept:
            problem = f"--sweep {word}: {short(key)} is swept already; give all of its values in one"
        problems += [problem] if problem else []
        swept.setdefault(key, values)
    numbers = tuple(range(seeds)) if seeds else (task.train.seed,)
    return grid(task, numbers, swept, known, problems)


def read_sweep(word: str, task: TaskSpec) -> tuple[str, list[Any], str]:
    """(key, values, what is wrong) of "learning_rate=1e-5,2e-5". Values are TOML, or plain words."""
    name, equals, text = word.partition("=")
    keys = spec.keys_called(name.strip())
    if not equals:
        return name, [], f"--sweep {word}: write it as key=value,value, for example learning_rate=1e-5,2e-5"
    if len(keys) != 1:
        which = (
            f": {' or '.join(keys)}?" if keys else f"{nearest(name, [*spec.KEYS, *map(short, spec.KEYS)])}"
        )
        return name, [], f"--sweep {word}: {name} is {'no key of a spec' if not keys else 'not clear'}{which}"
    if keys[0] in REFUSED:
        return keys[0], [], f"--sweep {word}: {short(keys[0])} can't be swept: {REFUSED[keys[0]]}"
    whole = spec.parse_value(f"[{text}]")
    values = whole if isinstance(whole, list) else [spec.parse_value(one.strip()) for one in text.split(",")]
    few = f"--sweep {word}: a sweep compares two values or more; for one, --set {keys[0]}={text}"
    return keys[0], values, few if len(values) < 2 else ""


def grid(
    task: TaskSpec,
    seeds: tuple[int, ...],
    swept: dict[str, list[Any]],
    known: Collection[str] = (),
    problems: Sequence[str] = (),
) -> Plan:
    """Every combination of the swept values, checked. ConfigError with every problem."""
    task, problems, settings = task.absolute(known), list(problems), []
    given = {key: values for key, values in swept.items() if key in spec.KEYS and values}
    for values in itertools.product(*given.values()):
        tables = task.table()
        for key, value in zip(given, values):
            table, _, name = key.partition(".")
            tables[table][name] = value
        made, wrong = spec.checked(tables, task.folder)
        problems += wrong
        if made is not None:
            made = made.absolute(known)
            settings.append(Setting({key: value_of(made, key) for key in given}, made))
    problems += twins(settings)
    if problems:
        told = "\n".join(f"  {problem}" for problem in dict.fromkeys(problems))
        raise ConfigError(f"what was asked for can't be run, and nothing was begun:\n{told}")
    found = {key: unique([one.values[key] for one in settings]) for key in given}
    return Plan(task, seeds, found, tuple(settings), folder_names(settings))


def twins(settings: list[Setting]) -> list[str]:
    """Pairs of settings that would train the same."""
    out, seen = [], []
    for one in settings:
        tables = one.task.table()
        for key, used in NEEDED.items():
            table, _, name = key.partition(".")
            if not used(one.task):
                tables[table].pop(name, None)
        twin = next((other for other, theirs in seen if theirs == tables), None)
        if twin:
            out.append(f"{twin.name} and {one.name} are the same training: leave one out")
        seen.append((one, tables))
    return out


def folder_names(settings: list[Setting]) -> tuple[str, ...]:
    """A folder for each setting, named after it; "" where there is only one."""
    out: list[str] = []
    for one in settings:
        name = re.sub(r"[^\w.,=+-]+", "-", one.name.replace(", ", ","))[:80].rstrip(".")
        tries = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        taken = {other.casefold() for other in out}  # some disks take upper and lower case for one
        out.append(next(one for one in tries if one.casefold() not in taken))
    return tuple(out)


def value_of(task: TaskSpec, key: str) -> Any:
    """The value of "table.key"."""
    table, _, name = key.partition(".")
    return getattr(getattr(task, table), name)


def short(key: str) -> str:
    """A key without its table."""
    return key.rpartition(".")[2]


def unique(values: list[Any]) -> list[Any]:
    """Each value once, in their order; a table is no key of a dict."""
    return [value for place, value in enumerate(values) if value not in values[:place]]
