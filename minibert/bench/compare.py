"""Two runs of a bench: what got slower, what faster, how surely; what stopped working.

A machine is faster on one day than on another, so times are taken in units of the peak that each run
measured for itself. That measure is good to some percent, so a change within MARGIN is called none.

In:  two documents of `attention.run`.   Out: a line for each row that both have, and notes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import DataError
from .ratios import change

MARGIN = 0.03
HUNGRIER = 1.05  # times the memory of before
# Conditions that make two runs hard to compare where they differ.
DECISIVE = ("cpu", "cpu_capability", "cores", "threads", "products", "device", "device_name", "flags", "versions",
            "environment")  # fmt: skip
ABOUT = ("kernel", "heads", "width", "dtype", "dropout", "direction")


def read(path: Path) -> dict[str, Any]:
    """An earlier run's JSON; DataError where it is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
        if (
            isinstance(found, dict)
            and isinstance(found.get("rows"), list)
            and found.get("verb") == "attention"
        ):
            return found
    except (OSError, ValueError) as problem:
        raise DataError(f"{path} can't be compared with: {problem}") from problem
    raise DataError(f"{path} can't be compared with: it is no attention.json of minibert bench")


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a row is about: the same in two runs if the same was measured."""
    texts = row["lengths"]
    return (*(row[name] for name in ABOUT), texts["name"], texts["texts"], texts["tokens"], texts["longest"])


def compared(new: dict[str, Any], old: dict[str, Any]) -> tuple[list[dict[str, str]], list[str]]:
    """A line of text cells for each row in both, the worst change first; and what to know of the comparison."""
    before = {key(row): row for row in old["rows"]}
    pairs = [(row, before[key(row)]) for row in new["rows"] if key(row) in before]
    told = sorted((line(*pair, new["peak"], old["peak"]) for pair in pairs), key=lambda x: -x[0])
    notes = [
        f"{name} differs: {old['conditions'].get(name)} before, {new['conditions'].get(name)} now"
        for name in DECISIVE
        if plain(old["conditions"].get(name)) != plain(new["conditions"].get(name))
    ]
    notes += [
        f"{name} differs: {old['settings'].get(name)} before, {new['settings'].get(name)} now"
        for name in ("caches", "tokens", "seed")
        if old["settings"].get(name) != new["settings"].get(name)
    ]
    alone = len(new["rows"]) - len(pairs)
    notes += [f"{alone} of {len(new['rows'])} rows have no counterpart"] if alone else []
    return [cells for _, cells in told], notes


def line(
    new: dict[str, Any], old: dict[str, Any], peak: dict[str, Any], peak_before: dict[str, Any]
) -> tuple[float, dict[str, str]]:
    """How bad it is, and the cells: time now over time before, in units of each run's peak."""
    about = {
        "kernel": new["kernel"],
        "shape": f"{new['heads']}x{new['width']}",
        "lengths": new["lengths"]["name"],
        "dtype": new["dtype"],
        "dropout": f"{new['dropout']:g}",
        "direction": new["direction"],
    }
    states = [row["outcome"] if row["outcome"] != "ok" else row["verdict"] or "ok" for row in (old, new)]
    if states[0] != states[1] or new["outcome"] != "ok":
        worse = states[0] != states[1] and states[1] not in ("PASS", "ok")
        words = states[1] if states[0] == states[1] else f"{states[0]} before, {states[1]} now"
        return (1e9 if worse else 0.0), about | {"time now / before": "-", "sure": "-", "change": words}
    scale = peak[new["dtype"]]["tflops"] / peak_before[new["dtype"]]["tflops"]
    ratio, above = change([scale * ms for ms in new["rounds"]], old["rounds"])
    word = "slower" if ratio.low > 1 + MARGIN else "faster" if ratio.high < 1 - MARGIN else "no change"
    if hungrier := bool(old["peak_mem"] and (new["peak_mem"] or 0) > HUNGRIER * old["peak_mem"]):
        word += f", {new['peak_mem'] / old['peak_mem']:.2f} times the memory"
    return ratio.value + 1e3 * hungrier, about | {
        "time now / before": f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
        "sure": f"{max(above, 1 - above):.1%}",
        "change": word,
    }


def plain(value: Any) -> Any:
    """As it reads once it was written: tuples are lists."""
    return json.loads(json.dumps(value))
