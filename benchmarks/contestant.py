"""What both sides of a race share: a job comes in one file, its result goes into another; how steps are clocked.

In:  `python -m MODULE JOB.json RESULT.json`, in a process of its own.   Out: RESULT.json, numbers only.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MB = 1e6


def serve(kinds: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """Do the job that the command line names, with as many threads as it says."""
    import torch

    def each(job: dict[str, Any]) -> dict[str, Any]:
        return {"jobs": {name: kinds[one["what"]](one) for name, one in job["jobs"].items()}}

    kinds, job = kinds | {"each": each}, json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    Path(sys.argv[2]).write_text(json.dumps(kinds[job["what"]](job)), "utf-8")


def proc_status(key: str) -> float | None:
    """A line of /proc/self/status in MB; None where there is no such file."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024 / MB
    return None


def memory() -> float | None:
    """MB that the process holds in RAM now."""
    return proc_status("VmRSS")


def peak() -> float:
    """Most MB that it held since `forget_peak`; since its start, where the system has no such mark."""
    found = proc_status("VmHWM")
    if found is None:
        import resource  # not on Windows

        kilobytes = 1 if sys.platform == "darwin" else 1024
        found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobytes / MB
    return found


def forget_peak() -> bool:
    """Put the mark of the most memory back to what is held now (man 5 proc, clear_refs); False if that can't be."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
        return True
    return False


class Clock:
    """A line a step: [seconds since the last one, texts, tokens, cells computed, CPU seconds of all threads].

    `start` is called before the first step, and again behind whatever is no training.
    """

    def __init__(self) -> None:
        self.steps: list[list[float]] = []
        self.start()

    def start(self) -> None:
        self.since, self.worked = time.perf_counter(), time.process_time()

    def step(self, texts: int, tokens: int, cells: int) -> None:
        now, worked = time.perf_counter(), time.process_time()
        self.steps.append([now - self.since, texts, tokens, cells, worked - self.worked])
        self.since, self.worked = now, worked
