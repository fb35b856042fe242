"""The most memory that one call of a kernel takes, above what stood before it.

On a CPU in a process of its own, which has computed nothing but the same kernel on two tokens before, so
that nothing is counted that an earlier kernel left behind; what a system would end for its hunger ends there. On a
card the allocator counts, in this process. Of "backward" it is that of "both": what forward keeps must be there.

In:  a kernel's name, a Case.   Out: Used(bytes, outcome, why).
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from .. import device as devices
from .. import kernels
from ..system import forget_own_peak, give_back_memory, own_memory
from .case import Case, outcome, prepared
from .lengths import Lengths

PATIENCE = 600  # seconds that one such process may take
TINY = Lengths("fixed:2", (2,))


class Used(NamedTuple):
    """Bytes of a call, None where they couldn't be measured; why, in the words of a row."""

    bytes: int | None
    outcome: str = "ok"
    why: str = ""


def peak(name: str, case: Case, file: Path | None = None) -> Used:
    """Measure it; `file` registers the kernel where it isn't one of ours."""
    case = dataclasses.replace(case, direction="both") if case.direction == "backward" else case
    if torch.device(case.device).type != "cpu":
        return on_card(name, case)
    ways = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in ways else "spawn")
    context.set_forkserver_preload([__name__])  # imported once, computes nothing
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=in_child, args=(theirs, name, case, file, torch.get_num_threads()))
    process.start()
    theirs.close()
    try:
        answered = ours.poll(PATIENCE)
        return Used(*ours.recv()) if answered else Used(None, "error", f"took more than {PATIENCE} s")
    except EOFError:  # it ended without a word
        process.join()
        return Used(None, *ended(process.exitcode or 0))
    finally:
        process.kill()
        process.join()


def ended(code: int) -> tuple[str, str]:
    """What a process's end without an answer means."""
    if code == -9:  # SIGKILL, which Linux sends to what is too large
        return "out_of_memory", "the system ended its process"
    return "error", f"its process ended with {code}"


def in_child(answer: Connection, name: str, case: Case, file: Path | None, threads: int) -> None:
    """What the process does."""
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = (
        "1"  # else the first call that is timed finds its work done
    )
    torch.set_num_threads(threads)
    try:
        devices.products()
        if file:
            kernels.register_file(file)
        kernel = kernels.KERNELS[name]
        kernel.at(torch.device(case.device).type).build(True)
        for one in (dataclasses.replace(case, lengths=TINY), case):
            layout, inputs = one.layout(), one.inputs(0)
            call = prepared(kernel, one, layout)(inputs)
            give_back_memory()
            forget_own_peak()
            before = own_memory()
            call()
        highest = own_memory(peak=True)
        answer.send((max(0, highest - before) if before else None,))
    except Exception as problem:
        answer.send((None, *outcome(problem)))


def on_card(name: str, case: Case) -> Used:
    """By the card's own allocator; the second call counts, the first may compile."""
    device = torch.device(case.device)
    try:
        layout, inputs = case.layout(), case.inputs(0)
        call = prepared(kernels.KERNELS[name], case, layout)(inputs)
        call()
        devices.free()
        devices.forget_peak(device)
        before = devices.peak_memory(device)
        call()
        devices.wait(device)
        return Used(devices.peak_memory(device) - before)
    except Exception as problem:
        return Used(None, *outcome(problem))
    finally:
        devices.free()
