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


def own_card(place: str, local: int) -> bool:
    """Let "cuda" mean the card of this process, the `local`-th of those on this machine; False for a CPU."""
    device = pick(place)
    if device.type == "mps" or device.index is not None:
        raise ConfigError(
            f"device {place!r} is one for several processes", 'Use "cpu", or "cuda": a card for each.'
        )
    if device.type == "cuda":
        pick(f"cuda:{local}")  # raises where there is none
        torch.cuda.set_device(local)
    return device.type == "cuda"


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


@contextlib.contextmanager
def torchs_own_products() -> Iterator[None]:
    """Inside, float32 products are made by what torch takes by itself, whatever `products` chose."""
    if products() == "torch's own":
        yield
        return
    settings = torch.backends.mkldnn.matmul
    before, settings.fp32_precision = settings.fp32_precision, "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before


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


# A number format to train in -> (dtype of the parameters, dtype of autocast or None), and what it is, for the
# report. In every one of them the weights, the sums that leave a product, the loss and the updates are in the
# first; evaluation is in it, too, without TF32.
FORMATS = {
    "float32": (torch.float32, None, "float32"),
    "tf32": (torch.float32, None, "float32, matrix products in TF32 (10 bits behind the point)"),
    "bfloat16": (torch.float32, torch.bfloat16, "bfloat16 autocast, weights and updates in float32"),
    "float16": (
        torch.float32,
        torch.float16,
        "float16 autocast with a dynamic loss scale, weights and updates in float32",
    ),
    "float64": (torch.float64, None, "float64"),
}


def number_format(name: str, device: torch.device, force: bool = False) -> str:
    """The word of FORMATS that a spec's `dtype` stands for on a device.

    "auto": on a card bfloat16 where it has it, else float16 where it has tensor cores; float32 elsewhere.
    A format that the device lacks is refused, or would be so slow that nobody can mean it: the latter can be
    forced. ConfigError says why.
    """
    if name == "auto":
        found = ("bfloat16", "float16") if device.type == "cuda" else ()
        return next((word for word in found if not lacks(word, device)), "float32")
    if name not in FORMATS:
        raise ConfigError(f"dtype {name!r} is none of auto, {', '.join(FORMATS)}{nearest(name, FORMATS)}")
    why = lacks(name, device)
    forcible = device.type != "mps" and FORMATS[name][1] is not None
    if why and not (force and forcible):
        raise ConfigError(
            f"dtype {name!r} can't be used for training on {device}: {why}",
            'Use "auto" or "float32"' + (", or [train] force_dtype = true." if forcible else "."),
        )
    return name


def precision(name: str, device: torch.device, force: bool = False) -> tuple[torch.dtype, torch.dtype | None]:
    """(dtype of the parameters, dtype of autocast or None) for a word of the spec, see `number_format`."""
    return FORMATS[number_format(name, device, force)][:2]


def lacks(word: str, device: torch.device) -> str:
    """'' if a device computes this format as fast as it should, or why not."""
    if word == "float32" or (word == "float64" and device.type != "mps"):
        return ""
    if device.type == "cuda":
        least, name = {"float16": ((7, 0), "tensor cores")}.get(word, ((8, 0), word))
        return "" if torch.cuda.get_device_capability(device) >= least else f"this card has no {name}"
    if device.type == "cpu" and word == "bfloat16":
        # 44 to 500 times as slow as float32 without them: pytorch #146508
        return (
            "" if has_bfloat16() else "this processor has no instructions for it and is tens of times slower"
        )
    return "that is for cards" if device.type == "cpu" else "it was never tried there"


def has_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16, and torch uses them."""
    known = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.6 has none
    has = any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return bool(has and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def caution(word: str, device: torch.device) -> str:
    """What to know of a number format before training in it, or ''."""
    if device.type == "cpu" and FORMATS[word][1] is not None:
        if lacks(word, device):
            return f"{word} was forced: {lacks(word, device)}; float32 is faster here."
        return (
            "bfloat16 on a processor is no gain by itself: with AVX-512's instructions for it MiniLM read texts at "
            "0.7 times float32's speed. Time a few steps of both."
        )
    return ""


def said(word: str, device: torch.device) -> str:
    """What training computes in, for the report."""
    return FORMATS[word][2] + (", TF32 off" if device.type == "cuda" and word == "float32" else "")


@contextlib.contextmanager
def float32_as(word: str) -> Iterator[None]:
    """Inside, a card makes float32 matrix products in TF32 for the word "tf32", in float32 itself for any other.

    The switch is the whole process's, in torch, and is put back as it was. (A CPU's is `products`.)
    """
    settings = torch.backends.cuda.matmul
    new = hasattr(settings, "fp32_precision")  # torch 2.9; it has no use for the older name beside it
    name, wanted = (
        ("fp32_precision", "tf32" if word == "tf32" else "ieee") if new else ("allow_tf32", word == "tf32")
    )
    before = getattr(settings, name)
    setattr(settings, name, wanted)
    try:
        yield
    finally:
        setattr(settings, name, before)


def in_tf32() -> bool:
    """Whether a card makes float32 matrix products in TF32 just now."""
    settings = torch.backends.cuda.matmul
    return getattr(settings, "fp32_precision", "") == "tf32" or (
        not hasattr(settings, "fp32_precision") and settings.allow_tf32
    )


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


def no_flash() -> str:
    """'' if torch's flash attention runs on every card here, or why not."""
    if not torch.backends.cuda.is_flash_attention_available():
        return "needs a torch that was built with flash attention for CUDA"
    return no_ampere()


def no_triton() -> str:
    """'' if Triton's programs run on every card here, or why not."""
    return no_ampere() if torch.version.cuda else "needs a torch that was built for CUDA"


def no_ampere() -> str:
    """'' if every card here is of Ampere or newer, or which one is not."""
    cards = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    old = [card for card in cards if torch.cuda.get_device_capability(card) < (8, 0)]
    return f"needs cards from Ampere on, and {torch.cuda.get_device_name(old[0])} is older" if old else ""


def current(x: torch.Tensor) -> contextlib.AbstractContextManager:
    """Inside, the card that holds x is the one that programs are launched on."""
    return torch.cuda.device_of(x)


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


def peak_memory(device: torch.device) -> int:
    """The most bytes that tensors have taken on a card since `forget_peak`; asking makes nothing wait. 0 elsewhere."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def memory(device: torch.device) -> int:
    """Bytes that a card has in all; 0 elsewhere."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0


def forget_peak(device: torch.device) -> None:
    """Count `peak_memory` from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def mark() -> Any:
    """A point in a card's work that keeps its time: `a.record()`, `b.record()`, then `a.elapsed_time(b)` in ms."""
    return torch.cuda.Event(enable_timing=True)


def card(device: torch.device) -> str:
    """A card's name; '' where there is none."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def card_id(device: torch.device) -> str:
    """By which NVIDIA's tools know a card; '' where there is none, or this torch can't tell."""
    if device.type != "cuda":
        return ""
    found = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    return found if found.startswith(("GPU-", "MIG-")) or not found else f"GPU-{found}"


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
        "device_name": card(device),
    }


def cpu_name() -> str:
    """The processor's name, as the system gives it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
