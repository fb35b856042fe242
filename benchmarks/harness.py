"""What every race needs: contestants in rounds, each in a process of its own; ratios; conditions; tables.

In:  for each round the contestants' jobs, by name.
Out: a line of JSON a contestant and round, as they come; of all of them a result: NAME.json and NAME.md.

A race that was interrupted goes on where it was when it is started again: what stands in NAME.jsonl is not measured
again, if it was measured under the same settings on the same machine.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from measures import Row
from pages import WAYS

HERE = Path(__file__).resolve().parent
FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
VERSIONS = ("torch", "numpy", "tokenizers", "transformers", "accelerate")
# Of the environment: what changes how fast torch is.
VARIABLES = ("OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_SPINCOUNT", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA",
             "MKL_ENABLE_INSTRUCTIONS", "MINIBERT_NATIVE", "LD_PRELOAD")  # fmt: skip
TIMEOUT = 3600  # seconds that one contestant may take in one round

Jobs = dict[str, tuple[str, dict[str, Any]]]  # contestant -> module of benchmarks/, job


class Refused(Exception):
    """A race that can't be run as asked; the message says why."""


# --- rounds ---------------------------------------------------------------------------------------


class Race:
    """The rows of one NAME.jsonl, whose first line says under which settings and on which machine they are had.

    `render`: nothing is measured; tables are made anew of what is there.
    """

    def __init__(self, file: Path, settings: dict[str, Any], render: bool = False):
        self.file, self.render, self.rows = file, render, {}
        key = json.loads(json.dumps({"settings": settings, "machine": machine()}))
        if not file.exists() and render:
            raise Refused(f"there is no {file} to make tables of")
        heads = []
        for line in lines_of(file):
            if "settings" in line:
                heads.append(line)
            else:
                self.keep(line)
        if heads and not render and (changed := changes(heads[-1], key)):
            raise Refused(f"{file} was measured otherwise: {'; '.join(changed)}. Measure anew with --fresh.")
        head = heads[-1] if heads and render else key
        self.settings, self.machine = head["settings"], head["machine"]
        if head not in heads:
            self.append(head)

    def append(self, line: dict[str, Any]) -> None:
        """A line of the file, in one write."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")

    def keep(self, row: Row) -> None:
        """The newest row of a contestant in a round counts."""
        self.rows[row["round"], row["name"]] = row

    def run(self, jobs: Callable[[int], Jobs], rounds: Iterable[int]) -> list[Row]:
        """Measure what is not there yet, or failed: round by round, each contestant after the other. All rows."""
        for number in () if self.render else rounds:
            for name, (module, job) in jobs(number).items():
                if "error" in self.rows.get((number, name), {"error": "not measured"}):
                    row = {"round": number, "name": name, **measured(module, job, self.settings["threads"])}
                    self.append(row)
                    self.keep(row)
                    failed = f", failed: {row['error']}" if "error" in row else ""
                    say(f"round {number}, {name}: {row['seconds']:.0f} s{failed}")
        return self.asked()

    def asked(self) -> list[Row]:
        """The rows of the rounds that are asked for: an interrupted race may hold half of a later one."""
        return [row for row in self.rows.values() if row["round"] < self.settings.get("rounds", np.inf)]

    @property
    def failures(self) -> list[str]:
        """What went wrong, in sentences."""
        failed = (row for row in self.rows.values() if "error" in row)
        return [f"round {row['round']}, {row['name']}: {row['error']}" for row in failed]

    def conditions(self) -> dict[str, Any]:
        """The machine, and what went on there while the rows were measured."""

        def all_of(name: str) -> list[Any]:
            return [row[name] for row in self.rows.values() if row.get(name) is not None]

        return {
            **self.machine,
            "threads": self.settings["threads"],
            "measured": f"{min(all_of('ended'), default='?')} to {max(all_of('ended'), default='?')}",
            "highest load when a contestant began": max(all_of("load"), default=None),
            "largest share of the cores' time stolen by other machines": max(all_of("steal"), default=None),
            "largest share of it taken by other processes": max(all_of("others"), default=None),
        }

    def write(self, title: str, text: str, **found: Any) -> str:
        """NAME.json with all rows, and NAME.md for people, beside NAME.jsonl; the latter's text."""
        facts = self.conditions()
        whole = {"title": title, "settings": self.settings, **found, "conditions": facts}
        whole |= {"failures": self.failures, "rows": self.asked()}
        text = "".join(f"**Failed:** {what}\n\n" for what in self.failures) + text
        words = "\n".join(f"- {name}: {told(value)}" for name, value in facts.items())
        page = f"# {title}\n\n{text}\n\n{WAYS}\n\n## Conditions\n\n{words}\n"
        self.file.with_suffix(".json").write_text(json.dumps(finite(whole), indent=1) + "\n", "utf-8")
        self.file.with_suffix(".md").write_text(page, "utf-8")
        return page


def lines_of(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; a torn last one, of a killed race, is cut off."""
    if not file.exists():
        return []
    text = file.read_text("utf-8")
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        file.write_text(text, "utf-8")
    return [json.loads(line) for line in text.splitlines()]


def changes(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two first lines, but for how many rounds there are to be."""
    return [
        f"{name} was {was[part].get(name)!r}, is {now[part].get(name)!r}"
        for part in now
        for name in {**was[part], **now[part]}
        if name != "rounds" and was[part].get(name) != now[part].get(name)
    ]


def measured(module: str, job: dict[str, Any], threads: int) -> Row:
    """A contestant's result, or its error; and what the machine did meanwhile."""
    variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    variables |= {"HF_HUB_OFFLINE": "1"}  # without a network
    if job.get("device") != "cuda":
        variables |= {"CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as work:
        question, answer, log = (Path(work, name) for name in ("job.json", "result.json", "log"))
        question.write_text(json.dumps({"threads": threads, **job}), "utf-8")
        load, before, start = os.getloadavg()[0] if hasattr(os, "getloadavg") else None, ticks(), time.time()
        with open(log, "w", encoding="utf-8") as heard:
            try:
                code = subprocess.run(
                    [sys.executable, "-m", module, str(question), str(answer)],
                    cwd=HERE, env=os.environ | variables, stdout=heard, stderr=heard, timeout=TIMEOUT,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = f"nothing within {TIMEOUT} s"
        ended = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
        row = {"seconds": time.time() - start, "ended": ended, "load": load, **meanwhile(before, ticks())}
        if code == 0:
            return row | json.loads(answer.read_text("utf-8"))
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        print(*lines[-30:], sep="\n", file=sys.stderr)
        return row | {"error": f"ended with {code}; its last words: {' / '.join(lines[-2:])[:400]}"}


def ticks() -> dict[str, float] | None:
    """Seconds that the machine's cores have been at work, idle, and stolen by other machines; our own processes'."""
    own = os.times()
    with contextlib.suppress(OSError), open("/proc/stat", encoding="ascii") as file:
        user, nice, system, idle, wait, irq, soft, steal = map(int, file.readline().split()[1:9])
        tick = os.sysconf("SC_CLK_TCK")
        busy = user + nice + system + irq + soft
        ours = own.user + own.system + own.children_user + own.children_system
        return {"all": (busy + idle + wait + steal) / tick, "busy": busy / tick, "steal": steal / tick,
                "ours": ours}  # fmt: skip
    return None


def meanwhile(before: dict[str, float] | None, after: dict[str, float] | None) -> dict[str, float | None]:
    """Which share of all cores' time was stolen, and which went into other processes than ours."""
    if before is None or after is None or after["all"] <= before["all"]:
        return {"steal": None, "others": None}
    spent = {name: after[name] - before[name] for name in after}
    return {
        "steal": spent["steal"] / spent["all"],
        "others": max(0.0, (spent["busy"] - spent["ours"]) / spent["all"]),
    }


def say(message: str) -> None:
    """A line of progress."""
    print(f"{datetime.datetime.now():%H:%M:%S} {message}", file=sys.stderr, flush=True)


# --- what is written ------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What is the same in all rounds: processor, versions, commit, the environment's settings."""
    import torch

    text = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        pairs = (line.partition(":") for line in file)
        text = {key.strip(): value.strip() for key, _, value in pairs}
    versions = {"python": platform.python_version()}
    for name in VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "processor": text.get("model name") or platform.processor(),
        "family, model, stepping": [text.get(k) for k in ("cpu family", "model", "stepping")],
        "flags": [flag for flag in FLAGS if flag in text.get("flags", "").split()],
        "torch's capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        **({"card": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "memory in GB": round(memory / 1e9, 1),
        "system": platform.system(),
        "versions": versions,
        "commit": commit(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def commit() -> str:
    """The checkout's commit, and whether its code was changed since."""
    asked = ("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--", "minibert", "benchmarks/*.py")
    try:
        head, changed = (
            subprocess.run(["git", *words], cwd=HERE.parent, capture_output=True, text=True, check=True)
            for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + (", changed" if changed.stdout.strip() else "")


def told(value: Any) -> str:
    """A condition in words."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "nothing set"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "unknown" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def finite(value: Any) -> Any:
    """NaN, which JSON can't say, as null."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
