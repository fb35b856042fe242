"""What a number was measured on: the machine, its settings and versions, and what else ran meanwhile.

In:  a device.   Out: dicts of words and numbers, for the head of the results.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from .. import device as devices
from ..errors import EnvironmentProblem
from ..system import processor_time

# Instructions that decide which code of a library runs, as /proc/cpuinfo spells them.
FLAGS = [
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
]
# What caps instructions, sets threads or changes how memory is given out.
VARIABLES = [
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_DEBUG_CPU_TYPE",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "MKL_NUM_THREADS",
    "KMP_AFFINITY",
    "LD_PRELOAD",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
    "TORCHINDUCTOR_FREEZING",
    "TRITON_INTERPRET",
]
PACKAGES = ("numpy", "triton", "flash-attn", "xformers")
BUSY_CARD = 5  # percent: more than that and another process is on it
BUSY_HOST = 0.10  # share of all cores' time that others take
# What nvidia-smi is asked for -> how a row calls it.
CARD = {
    "name": "name", "driver_version": "driver", "clocks.sm": "MHz", "clocks.mem": "memory MHz",
    "power.draw": "W", "temperature.gpu": "C", "utilization.gpu": "busy %", "memory.used": "used MiB",
}  # fmt: skip


class Watch:
    """From its making to `ended`: what the machine did in between."""

    def __init__(self, device: torch.device):
        self.device, self.start = device, time.time()
        self.ticks, self.card = processor_time(), card(device)

    def ended(self) -> dict[str, Any]:
        """Seconds, load, the shares of all cores' time that were stolen and that others took; a card's states."""
        before, after = self.ticks, processor_time()
        spent = {name: after[name] - before[name] for name in before if name in after}
        whole = spent.get("all", 0.0)
        found: dict[str, Any] = {
            "seconds": time.time() - self.start,
            "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
            "steal": spent["steal"] / whole if whole else None,
            "others": max(0.0, (spent["busy"] - spent["own"]) / whole) if whole else None,
        }
        if self.card:
            found |= {"card before": self.card, "card after": card(self.device)}
        return found


def machine(device: torch.device) -> dict[str, Any]:
    """What stays the same during a run."""
    built = torch.__config__.show()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    for name, pattern in (("MKL", r"Math Kernel Library Version (\S+)"), ("oneDNN", r"MKL-DNN v(\S+)")):
        versions[name] = found[1] if (found := re.search(pattern, built)) else None
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        **devices.describe(device),
        "flags": flags(),
        "versions": versions,
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "minibert": __version__,
        "commit": commit(),
    }


def flags() -> list[str]:
    """Those of FLAGS that the processor has, as Linux tells it; empty elsewhere."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("flags"):
                has = set(line.split())
                return [flag for flag in FLAGS if flag in has]
    return []


def commit() -> str:
    """The checkout's commit, and whether its code was changed since; '' outside of one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return ""
    said = [
        subprocess.run(["git", *words], cwd=here, capture_output=True, text=True)
        for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--", "minibert"))
        if shutil.which("git")
    ]
    if not said or any(one.returncode for one in said):
        return "unknown"
    return said[0].stdout.strip() + (", changed" if said[1].stdout.strip() else "")


def card(device: torch.device) -> dict[str, str]:
    """A card's clocks, power, temperature and load at this moment; {} where there is none or no tool says it."""
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        return {}
    asked = ["nvidia-smi", f"--query-gpu={','.join(CARD)}", "--format=csv,noheader,nounits"]
    name = devices.card_id(device)
    said = subprocess.run(asked + (["-i", name] if name else []), capture_output=True, text=True)
    values = said.stdout.strip().splitlines()[:1]
    return dict(zip(CARD.values(), (x.strip() for x in values[0].split(",")))) if values else {}


def check_idle(device: torch.device, anyway: bool = False) -> list[str]:
    """Warnings where the machine is busy with other things; EnvironmentProblem where a card is, unless `anyway`."""
    busy = card(device).get("busy %", "")
    if busy.isdecimal() and int(busy) > BUSY_CARD:
        words = f"the card is busy: {busy} % by another process, so what is measured on it means little"
        if not anyway:
            raise EnvironmentProblem(words, "Wait until it is free, or measure all the same with --busy.")
        return [words]
    watch = Watch(torch.device("cpu"))
    time.sleep(0.3)
    seen = watch.ended()
    return [
        f"{seen[word]:.0%} of this machine's time {what}: numbers will be noisy, ratios less so"
        for word, what in (("others", "goes into other processes"), ("steal", "is stolen by other machines"))
        if (seen[word] or 0) > BUSY_HOST
    ]
