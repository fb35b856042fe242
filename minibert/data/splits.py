"""Tables in, parts out: columns, labels, splits, folds and class weights.

In:  a TaskSpec's [data] table and a function that finds its files.
Out: Splits(train, validation, test), each a Part; every row that was left out is told in `notes`.

Sampling is a pure function of `[train] seed`, or for what is tested of `split_seed`: own permutations, one
stream of numbers a purpose, so that drawing fewer examples does not move the test rows. The rules:
- `examples` takes the first rows of one stratified order: a smaller draw lies inside a larger one, and each
  class is in it.
- A share of a table is dealt out class by class; in regression plainly. A class with one example stays in
  train. With `group`, whole groups are dealt, nearest to the share, and classes follow as they may: of 20
  shufflings the first that leaves every class in train is taken.
- `split` takes test first, then `examples` from what is left, then validation.
- `split_column` may lack a validation value: then the share `[data] validation` of its train rows is taken.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, nearest
from ..kinds import each_label
from ..spec import TaskSpec
from .mask import mask
from .parts import (
    Part,
    Pool,
    Splits,
    column,
    count_of,
    folded,
    kind_of,
    left_out,
    text_keys,
    usable_pools,
)
from .separated import excerpt
from .tables import Table, read_table

SHUFFLES = 20  # of groups, until one leaves every class in train
PART_WORDS = {
    "train": "train", "training": "train", "test": "test",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
STREAMS = {"test": 1, "examples": 2, "validation": 3, "folds": 4}
Tables = dict[str, Table]  # by their key in [data]


def load_splits(spec: TaskSpec, locate: Callable[[str], Path], tables: Tables | None = None) -> Splits:
    """Read the tables of a spec and split them; `locate` turns a source word of it into a path.

    `tables`: those of the spec, where they are in memory already.
    """
    return make_splits(spec, tables or read_tables(spec, locate))


def fold_splits(
    spec: TaskSpec, locate: Callable[[str], Path], tables: Tables | None = None
) -> Iterator[Splits]:
    """One Splits a fold: every usable row of [data] source is tested in exactly one.

    A class with one example is tested in a fold whose training rows lack it: [data] unseen decides.
    """
    return make_folds(spec, tables or read_tables(spec, locate))


def make_folds(spec: TaskSpec, tables: dict[str, Table]) -> Iterator[Splits]:
    """`fold_splits` of tables that `read_tables` read."""
    k, notes = spec.data.folds, []
    pools = usable_pools(spec, tables, notes)
    pool = pools["source"]
    units = len(pool) if pool.groups is None else len(set(pool.groups))
    if units < k:
        what = "rows" if pool.groups is None else f"values of {spec.data.group}"
        raise DataError(f"[data] folds = {k} needs as many {what}; {pool.table.path} has {units}.")
    fold = deal_folds(pool, k, kind_of(spec).stratified, stream(spec, "folds"))
    for i in range(k):
        here = [*notes, f"Fold {i + 1} of {k}."]
        yield finish(spec, pool.pick(fold != i), pools.get("validation"), pool.pick(fold == i), here, i)


def read_tables(spec: TaskSpec, locate: Callable[[str], Path]) -> Tables:
    """The spec's tables by their key in [data]; a file that serves as two parts is refused."""
    tables = {key: open_table(spec, locate(word)) for key, word in source_words(spec).items()}
    check_different(tables)
    return tables


def open_table(spec: TaskSpec, path: Path) -> Table:
    """A table, or the DataError that says what is wrong with it, in which cells are quoted as [data] mask wants."""
    try:
        return read_table(path, **form(spec))
    except DataError as problem:
        parts = problem.message.split(str(path))  # the name of the file is no cell
        message = str(path).join(mask(part, spec.data.mask) for part in parts)
        raise DataError(message, problem.fix) from None


def check_different(tables: Tables) -> None:
    """Refuse a table that serves as two parts."""
    for (one, first), (other, second) in itertools.combinations(tables.items(), 2):
        if first.sha256 == second.sha256:
            raise DataError(
                f"[data] {one} and {other} are the same file or frame: {second.path}.",
                "A score on texts that a model was trained or chosen on means nothing: name another.",
            )


def form(spec: TaskSpec) -> dict[str, Any]:
    """What a file can't say of itself, as read_table takes it."""
    d = spec.data
    return {"separator": d.separator, "encoding": d.encoding, "sheet": d.sheet, "columns": d.columns}


def further_part(
    spec: TaskSpec, word: str, locate: Callable[[str], Path], labels: tuple[str, ...], notes: list[str]
) -> Part:
    """Another table with the spec's columns as a part to be answered: `word` is its name or path, and the part's."""
    pool = usable_pools(spec, {"train": open_table(spec, locate(word))}, notes)["train"]
    return without_unseen(spec, pool, labels, word, notes).part(word)


def source_words(spec: TaskSpec) -> dict[str, str]:
    """What the spec calls its tables, by their key in [data]."""
    d = spec.data
    words = {"source": d.source} if d.source else {"train": d.train, "test": d.test}
    if isinstance(d.validation, str):
        if d.split or not d.validation:
            raise DataError("[data] validation is a share, or a table beside train, split_column or folds.")
        words["validation"] = d.validation
    return words


def make_splits(spec: TaskSpec, tables: dict[str, Table]) -> Splits:
    """Split tables that `read_tables` read. The rules stand at the top of this file."""
    d, notes = spec.data, []
    if d.folds:
        raise DataError("[data] folds asks for cross-validation: there is no single split to load.")
    pools = usable_pools(spec, tables, notes)
    train, validation, test = pools.get("train"), pools.get("validation"), pools.get("test")
    if d.split_column:
        train, own, test = by_column(spec, pools["source"])
        if validation is not None and own is not None:
            raise DataError(f'[data] validation is a table, and "{d.split_column}" has validation rows too.')
        validation = own or validation
    elif d.source:
        mask = take(pools["source"], d.split[2], kind_of(spec).stratified, stream(spec, "test"), "test")
        train, test = pools["source"].pick(~mask), pools["source"].pick(mask)
    return finish(spec, train, validation, test, notes)


def without_test(spec: TaskSpec, table: Table) -> Splits:
    """Training and validation rows of one table, [data] train; the test part has none."""
    notes: list[str] = []
    pool = usable_pools(spec, {"train": table}, notes)["train"]
    return finish(spec, pool, None, pool.pick(np.zeros(len(pool), bool)), notes)


def finish(
    spec: TaskSpec, train: Pool, validation: Pool | None, test: Pool, notes: list[str], fold: int = 0
) -> Splits:
    """From the training rows (validation still in them, if None) and test rows to checked Splits."""
    d, labels, whole = spec.data, (), len(train)
    if spec.train.examples:
        train = draw(spec, train, notes, fold)
    if validation is None:
        share = d.split[1] / (d.split[0] + d.split[1]) if d.split else d.validation
        mask = take(train, share, kind_of(spec).stratified, stream(spec, "validation", fold), "validation")
        train, validation = train.pick(~mask), train.pick(mask)
    same = set(each_label(spec.task.kind, train.targets) if kind_of(spec).words else train.targets)
    if len(same) == 1:
        only = shown(same.pop())
        what = f'{train.table.path}: all {count_of(len(train))} to train on have {d.label} = "{only}".'
        raise DataError(what, "There is nothing to learn: a wrong column, or a table sorted and cut?")
    if kind_of(spec).labels:
        labels = label_order(each_label(spec.task.kind, train.targets))
        if len(labels) < 2:
            raise DataError(
                f'{train.table.path}: the rows to train on know one label, "{labels[0]}", and two are needed.',
                'With one label a text has it or not: write that as two words, for [task] kind = "classification".',
            )
        validation = without_unseen(spec, validation, labels, "validation", notes)
        test = without_unseen(spec, test, labels, "test", notes)
    parts = [train.part("train"), validation.part("validation"), test.part("test")]
    check_groups(d.group, dict(zip(("train", "validation", "test"), (train, validation, test))))
    seen = set(text_keys(parts[0]))
    for part in parts[1:]:
        shared = sum(key in seen for key in text_keys(part))
        if shared:
            notes.append(f"{count_of(shared)} of {part.name}: the same text stands in train.")
    notes.append(", ".join(f"{part.name} {len(part):,}" for part in parts) + " rows.")
    return Splits(*parts, labels, tuple(dict.fromkeys(notes)), whole)


def stream(spec: TaskSpec, purpose: str, fold: int = 0) -> np.random.Generator:
    """Random numbers for one purpose, apart from all others."""
    seed = spec.train.seeds["split" if purpose in ("test", "folds") else "data"]
    return np.random.default_rng([seed, STREAMS[purpose], fold])


# From rows to parts


def take(pool: Pool, share: float, by_class: bool, rng: np.random.Generator, name: str) -> np.ndarray:
    """(n,) bool: a share of the rows for the part `name`; never all, never none."""
    if pool.groups is None:
        mask = take_rows(pool.targets if by_class else np.zeros(len(pool)), share, rng)
        of = count_of(len(pool))
    else:
        leave = 2 if name == "test" else 1  # validation needs a group too
        for _ in range(SHUFFLES):
            mask = take_groups(pool.groups, share, leave, rng)
            if not by_class or set(pool.targets) == set(pool.targets[~mask]):
                break
        of = f"the rows, in groups: {len(set(pool.groups)):,}"
    if not mask.any() or mask.all():
        raise DataError(
            f"{pool.table.path}: {share:.1%} of {of} leaves {name} or train without any.",
            "More rows are needed, or another share. A class with one row stays in train.",
        )
    return mask


def by_class_order(strata: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(rows class by class, classes and rows shuffled; the size of each row's class): (n,) each."""
    _, ids, counts = np.unique(strata, return_inverse=True, return_counts=True)
    shuffled, rank = rng.permutation(len(strata)), rng.permutation(len(counts))
    return shuffled[np.argsort(rank[ids[shuffled]], kind="stable")], counts[ids]


def take_rows(strata: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """(n,) bool: rows at even steps, from a random start, through the class-by-class order.

    So each class gives its share, give or take one, and each row is as likely as any other.
    """
    order, sizes = by_class_order(strata, rng)
    order = order[sizes[order] > 1]  # a class with one example stays in train
    mask, n = np.zeros(len(strata), bool), len(order)
    if n:
        wanted = min(n, max(1, int(len(strata) * share + 0.5)))
        steps = (np.arange(n + 1) * wanted + rng.integers(n)) // n  # whole numbers: `wanted` steps exactly
        mask[order[np.diff(steps) > 0]] = True
    for name in set(strata) - set(strata[~mask]):
        mask[order[strata[order] == name][0]] = False  # and of each class one does
    return mask


def take_groups(groups: np.ndarray, share: float, leave: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) bool: whole groups, shuffled, each taken if that brings the rows nearer to the share."""
    _, ids, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    wanted, count, chosen = share * len(groups), 0, []
    for group in rng.permutation(len(sizes)):
        nearer = abs(count + sizes[group] - wanted) < abs(count - wanted)
        if nearer and len(chosen) + leave < len(sizes):
            chosen.append(group)
            count += sizes[group]
    return np.isin(ids, chosen or [sizes.argmin()])


def deal_folds(pool: Pool, k: int, by_class: bool, rng: np.random.Generator) -> np.ndarray:
    """(n,) fold of each row, 0..k-1: classes dealt out evenly; or whole groups, the largest first."""
    fold = np.zeros(len(pool), np.int64)
    if pool.groups is None:
        order, _ = by_class_order(pool.targets if by_class else fold, rng)
        fold[order] = np.arange(len(pool)) % k
        return fold
    _, ids, sizes = np.unique(pool.groups, return_inverse=True, return_counts=True)
    order, filled, of_group = (
        rng.permutation(len(sizes)),
        np.zeros(k, np.int64),
        np.zeros(len(sizes), np.int64),
    )
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        of_group[group] = filled.argmin()
        filled[filled.argmin()] += sizes[group]
    return of_group[ids]


def by_column(spec: TaskSpec, pool: Pool) -> tuple[Pool, Pool | None, Pool]:
    """(train, validation or None, test) as the rows of [data] split_column say."""
    name = spec.data.split_column
    words = column(pool.table, name, "split_column")[pool.rows]
    parts = np.array([PART_WORDS.get(word.strip().lower(), "") for word in words], dtype=object)
    if (parts == "").any():
        first = int(np.flatnonzero(parts == "")[0])
        raise DataError(
            f"{pool.table.path}: {pool.table.where(int(pool.rows[first]))} has {name} = "
            f"{excerpt(words[first])}, no part ({count_of((parts == '').sum())} in all).",
            f"The parts are called {', '.join(PART_WORDS)}.",
        )
    for part in ("train", "test"):
        if part not in parts:
            raise DataError(f'{pool.table.path}: no usable row has {name} = "{part}".')
    validation = pool.pick(parts == "validation") if "validation" in parts else None
    return pool.pick(parts == "train"), validation, pool.pick(parts == "test")


def draw(spec: TaskSpec, pool: Pool, notes: list[str], fold: int) -> Pool:
    """[train] examples rows: the first of an order in which row j of a class of n comes at j/n."""
    wanted, rng = spec.train.examples, stream(spec, "examples", fold)
    strata = pool.targets if kind_of(spec).stratified else np.zeros(len(pool))
    least = len(set(strata))
    if not least <= wanted <= len(pool):
        raise DataError(
            f"[train] examples = {wanted:,}, but {pool.table.path} gives {count_of(len(pool))} to train on.",
            f"Choose from {least:,} (one a class) to {len(pool):,}.",
        )
    order, sizes = by_class_order(strata, rng)
    starts = np.flatnonzero(np.r_[True, strata[order][1:] != strata[order][:-1]])
    within = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    first = np.lexsort((rng.permutation(len(order)), within / sizes[order]))
    notes.append(f"{wanted:,} of {count_of(len(pool))} were drawn to learn from (seed {spec.train.seed}).")
    return pool.pick(order[first[:wanted]])


# What the parts must be


def label_order(targets: Iterable[str]) -> tuple[str, ...]:
    """The labels sorted as words, or by value if all are whole numbers."""
    labels = set(targets)
    whole = all(WHOLE.fullmatch(label) for label in labels)
    return tuple(sorted(labels, key=lambda label: (int(label) if whole else 0, label)))


def without_unseen(spec: TaskSpec, pool: Pool, labels: tuple[str, ...], name: str, notes: list[str]) -> Pool:
    """Treat rows with a label that train lacks as [data] unseen says: error, keep ("wrong"), or drop."""
    known, kind = set(labels), spec.task.kind
    missing = [[w for w in each_label(kind, [target]) if w not in known] for target in pool.targets]
    unseen = np.array([bool(words) for words in missing], bool)
    if not unseen.any():
        return pool
    counts = Counter(word for words in missing for word in words)
    said = ", ".join(f'"{label}" ({count:,})' for label, count in counts.most_common(5))
    fix = 'Set [data] unseen = "wrong" (kept, counted as mistakes) or "drop".'
    for word, label in ((w, k) for w in counts for k in labels if folded(w) == folded(k)):
        fix = f'"{word}" and "{label}" differ only in case, spaces or Unicode form: mend the table.'
    found = np.zeros(len(pool.table.frame), bool)
    found[pool.rows[unseen]] = True
    what = f"of {name} with labels that train lacks, {said}"
    policy = spec.data.unseen or kind_of(spec).unseen
    kept = pool.pick(~left_out(pool.table, found, policy, what, "unseen", notes, fix)[pool.rows])
    if not len(kept):
        raise DataError(f"{pool.table.path}: no row of {name} has a label that train has.", fix)
    return kept


def shown(target: Any) -> str:
    """A target as its cell holds it."""
    return ", ".join(target) if isinstance(target, tuple) else str(target)


def check_groups(name: str, parts: dict[str, Pool]) -> None:
    """Refuse a group that stands in more than one part."""
    seen: dict[str, str] = {}
    for part, pool in parts.items():
        for group in set(() if pool.groups is None else pool.groups):
            if not group.startswith("\0") and seen.setdefault(group, part) != part:
                raise DataError(
                    f'{name} "{group}" stands in {seen[group]} and in {part}.',
                    "Split one table ([data] source and split), or leave [data] group out.",
                )


def class_weights(
    setting: str | dict[str, float], targets: np.ndarray, labels: tuple[str, ...]
) -> np.ndarray | None:
    """(C,) float64 weights in label order from [train] class_weights; None for "none".

    "balanced": n / (C * count), from the training targets given. A table: 1.0 where it has no entry.
    """
    if setting == "none":
        return None
    if setting == "balanced":
        counts = Counter(targets)  # of a text's words together, where each has a tag
        return np.array([len(targets) / (len(labels) * counts[label]) for label in labels])
    for label, weight in setting.items():
        if label not in labels:
            hint = nearest(label, labels) or "."
            raise DataError(f'[train] class_weights: "{label}" is no label of train{hint}',
                            f"Labels: {', '.join(labels[:30])}.")  # fmt: skip
        if not 0 < weight < math.inf:
            raise DataError(f'[train] class_weights: "{label}" = {weight} is no finite number above 0.',
                            "To leave a class out, leave its rows out.")  # fmt: skip
    return np.array([setting.get(label, 1.0) for label in labels])
