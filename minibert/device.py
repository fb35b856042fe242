"""The only file that asks about CUDA and MPS: which device, which precision, which seed.

In:  words from a spec ("auto", "cuda:1", "bfloat16").   Out: torch devices, dtypes and contexts.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import platform
import shutil
from collections.abc import Iterator
from typing import Any

import torch

from .errors import ConfigError, EnvironmentProblem, OutOfMemory, nearest

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def pick(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, else the CPU.

    MPS is taken by name only, because nothing here was ever run on it. Raises EnvironmentProblem
    for a device that this machine lacks.
    """
    products()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is none of auto, cpu, cuda, cuda:0, mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise EnvironmentProblem(
                f"device {name!r} was asked for; this machine shows {count} to torch", hint()
            )
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise EnvironmentProblem("device 'mps' was asked for; this machine has none")
    elif device.type != "cpu":
        raise ConfigError(f"device {name!r} is none of auto, cpu, cuda, cuda:0, mps")
    return device


@functools.cache
def products() -> str:
    """Which library makes float32 matrix products on the CPU; set here, once, for the whole process.

    torch asks Intel's MKL, which leaves AVX-512 unused on other makers' processors: 100 GFLOP/s a core
    of an EPYC where oneDNN makes 220. torch reaches oneDNN through the permission to round to bfloat16,
    which only matrix units (AMX) use; that it isn't used here is shown, not assumed.
    """
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    known = hasattr(settings, "fp32_precision") and torch.backends.mkldnn.is_available()
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512") and "Intel" not in cpu_name()
    if not (known and wide) or settings.fp32_precision not in ("none", "ieee"):  # or the user has chosen
        return "torch's own"
    before, settings.fp32_precision = settings.fp32_precision, "bf16"
    if exact_products():
        return "oneDNN"
    settings.fp32_precision = before
    return "torch's own"


def exact_products() -> bool:
    """Whether a float32 product is one: bfloat16 would lose all that tells these numbers from 1."""
    left = 1 + torch.arange(64 * 64).view(64, 64) / 2**20
    exact = left.double() @ left.double().T
    return bool(((left @ left.T - exact).abs() / exact).max() < 1e-6)


def hint() -> str:
    """A sentence if an NVIDIA card is here that this torch can't use, else ''."""
    if not torch.cuda.is_available() and torch.version.cuda is None and shutil.which("nvidia-smi"):
        return (
            "This machine has NVIDIA's tools, but the installed torch is a CPU build: "
            "install the CUDA build of the same version to use the card."
        )
    return ""


def precision(name: str, device: torch.device) -> tuple[torch.dtype, torch.dtype | None]:
    """(dtype of the parameters, dtype of autocast or None) for a word of the spec.

    "auto": float32, on CUDA with bfloat16 autocast where the card has it. bfloat16 keeps float32
    parameters and is refused on a CPU, where it is slower than float32 by up to a hundred times.
    """
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.float32, torch.bfloat16 if fast else None
    if name in ("float32", "float64"):
        return DTYPES[name], None
    if name == "bfloat16" and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.float32, torch.bfloat16
    if name in DTYPES:
        raise ConfigError(
            f"dtype {name!r} can't be used for training on {device}", 'Use "auto" or "float32".'
        )
    raise ConfigError(f"dtype {name!r} is none of auto, {', '.join(DTYPES)}{nearest(name, DTYPES)}")


def number(name: str | torch.dtype) -> torch.dtype:
    """The dtype of parameters called `name`, or that dtype itself; "auto" is float32."""
    name = str(name).removeprefix("torch.")
    if name == "auto":
        return torch.float32
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r} is none of auto, {', '.join(DTYPES)}{nearest(name, DTYPES)}")
    return DTYPES[name]


def exact(device: torch.device) -> torch.dtype:
    """The finest floating dtype of a device: float64 but on MPS, which has none."""
    return torch.float32 if device.type == "mps" else torch.float64


@contextlib.contextmanager
def memory_named() -> Iterator[None]:
    """Turn running out of memory, on a card or in RAM, into a problem with a name and a way out."""
    try:
        yield
    except (RuntimeError, MemoryError) as problem:  # torch.OutOfMemoryError is the first
        words = str(problem) or "the machine has no more"
        if not isinstance(problem, (torch.OutOfMemoryError, MemoryError)) and "CPUAllocator" not in words:
            raise
        raise OutOfMemory(
            f"memory ran out: {words.splitlines()[0]}",
            "Lower [train] tokens_per_microbatch, or [model] max_tokens.",
        ) from None


def pinned(tensors: Any, device: torch.device) -> Any:
    """The same tensor or batch where a card can fetch it without the host waiting; as it is for others."""
    return tensors.pin_memory() if device.type == "cuda" else tensors


def wait(device: torch.device) -> None:
    """Until a card has done all that it was told; a CPU has, always."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free() -> None:
    """Give back what a step left behind that failed, so that a smaller one finds room."""
    gc.collect()  # the failed step's graph hangs in the traceback's frames
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Mixed precision on `device`, or nothing."""
    return torch.autocast(device.type, dtype) if dtype is not None else contextlib.nullcontext()


def seed(*numbers: int) -> None:
    """Set torch's generators from several numbers, such as (seed, step): equal in, equal out."""
    mixed = 0x9E3779B97F4A7C15
    for n in numbers:  # splitmix64's finaliser: neighbouring steps get unrelated generators
        mixed = (mixed ^ (n + 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
        mixed ^= mixed >> 31
    torch.manual_seed(mixed >> 1)


def describe(device: torch.device) -> dict[str, Any]:
    """What this machine is, for environment.json."""
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "products": products(),
        "device": str(device) + (" (untested)" if device.type == "mps" else ""),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "tf32": torch.backends.cuda.matmul.allow_tf32 if device.type == "cuda" else False,
    }


def cpu_name() -> str:
    """The processor's name, as the system gives it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
