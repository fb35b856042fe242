"""Rows as people and programs read them: a table of text, JSON, CSV.

In:  what `attention.run` gives.   Out: text; files in a folder.
"""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from ..system import write_text


def lines(document: dict[str, Any]) -> list[dict[str, str]]:
    """Each row's cells as text, under tritonbench's names where it has one."""
    return [cells(row) for row in document["rows"]]


def cells(row: dict[str, Any]) -> dict[str, str]:
    """One row; where it has no numbers, its outcome and why."""
    times, gain, worst = row["latency"], row["speedup"], worst_error(row)
    told = {
        "kernel": row["kernel"],
        "shape": f"{row['heads']}x{row['width']}",
        "lengths": short(row["lengths"]["name"]),
        "dtype": row["dtype"],
        "dropout": f"{row['dropout']:g}",
        "direction": row["direction"],
        "latency [p20, p80] ms": f"{plain(times['p50'])} [{plain(times['p20'])}, {plain(times['p80'])}]"
        if times
        else "-",
        "walltime s": "-" if row["walltime"] is None else plain(row["walltime"]),
        "tflops": "-" if row["tflops"] is None else plain(row["tflops"]),
        "%peak": number(row["peak_share"], ".0%"),
        "gbps": "-" if row["gbps"] is None else plain(row["gbps"]),
        "peak_mem MB": number(row["peak_mem"], ".1f", 1e6),
        "compile_time s": number(row["compile_time"], ".2g"),
        "mask_build ms": number(row["mask_build"], ".2g"),
        "errors": number(worst, ".2f"),
        "verdict": row["verdict"] if row["outcome"] == "ok" else row["outcome"],
        "speedup": f"{gain['value']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}]" if gain else "-",
        "": row["why"] if row["outcome"] != "ok" else row["label"],
    }
    return told


def plain(value: float) -> str:
    """Three digits, or all of a large number's before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def number(value: float | None, form: str, unit: float = 1) -> str:
    """A number, or a dash."""
    return "-" if value is None else format(value / unit, form)


def worst_error(row: dict[str, Any]) -> float | None:
    """The largest of its ratios; NaN, or null in a file, is larger than all."""
    found = [math.nan if ratio is None else ratio for ratio in row["errors"].values()]
    return max(found, key=lambda ratio: math.inf if math.isnan(ratio) else ratio) if found else None


def short(name: str) -> str:
    """The name of some lengths; of a file without its folders."""
    kind, _, rest = name.partition(":")
    return f"csv:{rest.replace(chr(92), '/').rpartition('/')[2]}" if kind == "csv" else name


def cut_short(document: dict[str, Any]) -> str:
    """Said of a measurement that was interrupted; '' of a whole one."""
    done, of = document.get("measured", (0, 0))
    return f"interrupted: {done} of {of} groups of cases were measured" if done < of else ""


def footnotes(document: dict[str, Any]) -> list[str]:
    """What must be known of the table: peaks, caches, what ran beside it."""
    peak, seen = document["peak"], document["conditions"]
    peaks = [f"{word} {one['tflops']:.3g} TFLOP/s" for word, one in peak.items() if word != "gbps"]
    busy = [f"{seen[w]:.0%} {what}" for w, what in (("others", "other processes"), ("steal", "stolen"))
            if seen.get(w) is not None]  # fmt: skip
    return [
        *filter(None, [cut_short(document)]),
        f"peak, measured in this run: matrix products {', '.join(peaks)}; memory {peak['gbps']:.3g} GB/s",
        f"{seen['device_name'] or seen['cpu']}, {seen['cpu_capability']}, {seen['threads']} threads, torch "
        f"{seen['versions']['torch']}; caches {document['settings']['caches']}; {', '.join(busy) or 'load unknown'}",
        "errors: the largest of output, dq, dk, dv, in units of plain PyTorch's own error; over 2 fails. "
        f"speedup: over {document['settings']['baseline']}, with its interval of 95 %",
    ]


def write(document: dict[str, Any], folder: Path) -> None:
    """VERB.json, all of it, and VERB.csv, the rows without their rounds, if there are any."""
    plain = finite(document)
    write_text(folder / f"{document['verb']}.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    if "rows" not in plain:
        return
    flat = [flattened({k: v for k, v in row.items() if k != "rounds"}) for row in plain["rows"]]
    names = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    write_text(folder / f"{document['verb']}.csv", text.getvalue())


def flattened(row: dict[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def finite(value: Any) -> Any:
    """NaN and infinity, which JSON can't say, as null."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
