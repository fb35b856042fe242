"""Several processes, as torchrun starts them: who does what, and how their sums become one.

In:  what torchrun tells each process.   Out: a World (see processes.py).

    Copies    DistributedDataParallel: each process holds the whole model and all of AdamW
    Shards    FSDP2: each holds a share of every tensor, and fetches a block's other shares as it computes it

Only the first process writes and speaks. What one of them can't go on for, it leaves in torchrun's store
before it ends; the others, whose connection breaks then, find it there and end with the same error.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from . import device, errors, progress, system
from .batch import by_tokens
from .errors import ConfigError, EnvironmentProblem, MiniBertError
from .processes import ALONE, Groups, World, share

TIMEOUT = 600.0  # seconds until a process that does not answer is given up; MINIBERT_TIMEOUT
PROBLEM, SAID = (
    "minibert/problem",
    "minibert/said",
)  # in the store: what a process ends for; that it is printed


class Copies(World):
    """Processes that each hold the whole model (DistributedDataParallel)."""

    word = "ddp"

    def __init__(self, rank: int, size: int, backend: str, store: Any):
        self.rank, self.size, self.backend, self.store = rank, size, backend, store

    def groups(self, sizes: Sequence[int], budget: int) -> Groups:
        """As many for each process: where each computes a share of a tensor, all compute at once."""
        if not sizes:
            return []
        shares = share(sizes, self.size)
        each = [by_tokens([sizes[i] for i in places], budget) for places in shares]
        own = [[shares[self.rank][i] for i in group] for group in each[self.rank]]
        company = [min(range(len(sizes)), key=lambda i: sizes[i])]
        missing = max(map(len, each)) - len(own)
        return [(group, True) for group in own] + [(company, False)] * missing

    def join(self, learner: nn.Module, model: nn.Module, parts: Sequence[nn.Module]) -> Callable[..., Any]:
        """A DistributedDataParallel. It takes the mean of gradients, so here a loss has `size` times its gradient;
        a hook that sums would be Python in gloo's threads."""
        from torch.nn.parallel import DistributedDataParallel

        known = inspect.signature(DistributedDataParallel).parameters
        buffers = (
            "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        )  # torch < 2.13
        with self.calling():
            self.copy = DistributedDataParallel(
                learner,
                find_unused_parameters=any_unused(learner),
                gradient_as_bucket_view=True,
                **{buffers: False},
            )
        return self.scaled

    def scaled(self, *ready: Any) -> tuple[Tensor, Tensor]:
        """The sum and count of a micro-batch, the sum as it is."""
        total, count = self.copy(*ready)
        return total + (self.size - 1) * (total - total.detach()), count

    @contextlib.contextmanager
    def summing(self, last: bool) -> Iterator[None]:
        """Forward and backward of a micro-batch belong inside."""
        with self.calling(), contextlib.nullcontext() if last else self.copy.no_sync():
            yield

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """A RuntimeError of the connection becomes what the process at its other end ended for."""
        try:
            yield
        except RuntimeError as problem:
            word = str(problem).lower()
            if not (isinstance(problem, torch.distributed.DistError) or "gloo" in word or "nccl" in word):
                raise
            raise lost(self.store, str(problem)) from None

    def sum(self, tensor: Tensor) -> Tensor:
        """Small: losses and counts, or a table of answers that is 0 where another process answers."""
        tensor = tensor.detach().clone()
        with self.calling():
            torch.distributed.all_reduce(tensor)
        return tensor

    def as_first(self, numbers: dict[str, float]) -> dict[str, float]:
        """So that none of them chooses another best epoch, whatever its processor makes of the last digit."""
        told = torch.tensor(list(numbers.values()), dtype=torch.float64)
        with self.calling():
            torch.distributed.broadcast(told, 0)
        return dict(zip(numbers, told.tolist()))

    def most(self, numbers: list[int]) -> list[int]:
        """The largest that any process has of each number."""
        told = torch.tensor(numbers, dtype=torch.int64)
        with self.calling():
            torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        return told.tolist()

    def agreed(self, stop: system.Stop) -> Agreed:
        """A signal may reach one process only, or each in another step."""
        return Agreed(stop, self)

    def wait(self, **facts: int) -> None:
        """What all should have read alike is compared, so that none waits for a step that no other does."""
        own = [0, *facts.values()]
        largest, smallest = self.most(own), [-n for n in self.most([-n for n in own])]
        for name, low, high in zip(facts, smallest[1:], largest[1:]):
            if low != high:
                raise ConfigError(
                    f"the processes don't agree: {name} is {low:,} in one and {high:,} in another",
                    "All need the same files, the run's folder included.",
                )

    def tell(self, problem: BaseException) -> None:
        """In the store."""
        tell(problem, self.store)

    def leave(self) -> None:
        """Take the group down. Copies go first: who holds the group last must not hold Python's lock, or a thread
        of gloo that waits for it is waited for."""
        self.copy = None
        torch.distributed.destroy_process_group()

    def facts(self) -> dict[str, Any]:
        """What environment.json says."""
        return {"processes": self.size, "parallel": self.word, "backend": self.backend}


class Shards(Copies):
    """Processes that each hold a share of every tensor (FSDP2), for models that fit in none of them."""

    word, shards = "fsdp", True

    def join(self, learner: nn.Module, model: nn.Module, parts: Sequence[nn.Module]) -> Callable[..., Any]:
        """`model` in place, its `parts` one by one, and the rest together."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
            raise EnvironmentProblem(
                f"parallel = 'fsdp' needs a newer torch than {torch.__version__}", "Upgrade it, or use 'ddp'."
            )
        with self.calling():
            mesh = init_device_mesh(next(model.parameters()).device.type, (self.size,))
            for part in (*parts, model):
                fully_shard(part, mesh=mesh)
                part.set_gradient_divide_factor(1.0)  # a sum, as the loop's loss is one
                part.set_force_sum_reduction_for_comms(True)
                part.unshard()  # once now: what inference mode would be the first to make can't learn
                part.reshard()
        return learner

    @contextlib.contextmanager
    def summing(self, last: bool) -> Iterator[None]:
        """With every micro-batch: a sum that waits for the last would be a whole gradient in each process."""
        with self.calling():
            yield

    def norms(self, gradients: list[Tensor]) -> list[Tensor]:
        """From the squares of the shares."""
        shares = torch.stack(torch._foreach_norm([gradient.to_local() for gradient in gradients]))
        return list(self.sum(shares.double().square()).sqrt().to(shares.dtype))

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """One after the other, on the CPU; every process must ask."""
        out = {}
        for name, tensor in tensors.items():
            with self.calling():
                found = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
            if self.first:
                out[name] = found.detach().cpu()
        return out

    def part(self, whole: Tensor, like: Tensor | None) -> Tensor:
        """Every process has read the same file, so nothing is sent."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor) or whole.shape != like.shape:
            return whole
        return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

    @contextlib.contextmanager
    def saving(self, model: nn.Module) -> Iterator[None]:
        """Its shares stand aside meanwhile, so that what saves a model needs to know nothing of them."""
        model.reshard()
        places = [(part, name) for part in model.modules() for name in part._parameters]
        shares = {(part, name): part._parameters[name] for part, name in places}
        tensors = dict.fromkeys(p for p in shares.values() if p is not None)  # what is tied stays tied
        whole = self.whole({str(i): p for i, p in enumerate(tensors)})
        if self.first:
            made = {p: nn.Parameter(whole[str(i)], p.requires_grad) for i, p in enumerate(tensors)}
            for (part, name), p in shares.items():
                part._parameters[name] = made.get(p)
        try:
            yield
        finally:
            for (part, name), p in shares.items():
                part._parameters[name] = p


class Agreed:
    """A Stop as all processes see it: `requested` changes where they meet, and nowhere else."""

    def __init__(self, stop: system.Stop, world: Copies):
        self.stop, self.world, self.requested = stop, world, ""

    def meet(self, flag: bool = False) -> bool:
        """Whether any process says so; from here on all know whether any was asked to stop."""
        signals = ("", *system.SIGNALS)
        asked, said = self.world.most([signals.index(self.stop.requested), int(flag)])
        self.requested = signals[asked]
        return bool(said)


def any_unused(learner: nn.Module) -> bool:
    """Whether a parameter that learns has no part in the loss, such as those of a pooler that no head reads.

    DistributedDataParallel looks for them in each step if it is told to, and waits for them if not.
    """
    learner.train()
    learner(*learner.prepare([0], (0, 0)))[0].backward()
    found = any(p.grad is None for p in learner.parameters() if p.requires_grad)
    learner.zero_grad(set_to_none=True)
    return found


# --- beginning and ending -------------------------------------------------------------------------


@contextlib.contextmanager
def joined(parallel: str, place: str) -> Iterator[World]:
    """The world of this process: ALONE, or what torchrun started, for a device's name (see device.pick).

    An error that leaves is told to the others.
    """
    rank, size = system.processes()
    if size == 1:
        yield ALONE
        return
    progress.muted = rank > 0
    store = None
    try:
        store = open_store(rank, size)
        world = begun(parallel, place, rank, size, store)
        yield world
        world.leave()
    except MiniBertError as problem:  # the group is left as it is: who ends it might wait for the others
        tell(problem, store)
        raise
    finally:
        progress.muted = False


def begun(parallel: str, place: str, rank: int, size: int, store: Any) -> World:
    """The group of processes: gloo, and NCCL for what lies on cards, one card a process."""
    cards = device.own_card(place, int(os.environ.get("LOCAL_RANK", rank)))
    backend = "cpu:gloo,cuda:nccl" if cards else "gloo"
    try:
        torch.distributed.init_process_group(
            backend, store=torch.distributed.PrefixStore("group", store), rank=rank, world_size=size,
            timeout=patience(),
        )  # fmt: skip
    except RuntimeError as problem:
        raise lost(store, str(problem)) from None
    kind = Shards if parallel == "fsdp" else Copies
    return kind(rank, size, "nccl" if cards else "gloo", store)


def patience() -> timedelta:
    """How long a process waits for the others."""
    return timedelta(seconds=float(os.environ.get("MINIBERT_TIMEOUT", TIMEOUT)))


def open_store(rank: int, size: int) -> Any:
    """What torchrun keeps for its processes to find one another by."""
    if not torch.distributed.is_available():
        raise EnvironmentProblem(f"torchrun started {size} processes, but this torch knows only one")
    try:
        return next(torch.distributed.rendezvous("env://", rank, size, timeout=patience()))[0]
    except (RuntimeError, ValueError) as problem:
        raise EnvironmentProblem(f"process {rank} of {size} found none of the others: {problem}") from None


def tell(problem: BaseException, store: Any = None) -> None:
    """Leave in the store what this process ends for. `problem.told`: another one was before, and says it."""
    if getattr(problem, "told", None) is not None:
        return
    message, fix = getattr(problem, "message", str(problem)), getattr(problem, "fix", "")
    problem.told = False
    store = store or kept_store()
    if store:
        facts = {"kind": type(problem).__name__, "message": message, "fix": fix, "by": os.getpid()}
        written = json.dumps(facts)
        with contextlib.suppress(RuntimeError):
            problem.told = store.compare_set(PROBLEM, "", written).decode() != written


@contextlib.contextmanager
def speaking(problem: MiniBertError) -> Iterator[bool]:
    """Whether it is this process that says what all end for. The others wait until it has: once one has ended,
    torchrun ends those that are left."""
    tell(problem)
    yield not problem.told
    store = kept_store()
    with contextlib.suppress(RuntimeError):
        if store and not problem.told:
            store.set(SAID, "yes")
        limit = time.monotonic() + 5
        while store and not store.check([SAID]) and time.monotonic() < limit:
            time.sleep(0.02)


def kept_store() -> Any:
    """The store where torchrun itself keeps it, so that it outlives its processes; else None."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        with contextlib.suppress(MiniBertError):
            return open_store(*system.processes())
    return None


def lost(store: Any, why: str) -> BaseException:
    """The error for a connection that broke: that of the process which left, if it left one."""
    try:
        told = json.loads(store.get(PROBLEM)) if store.check([PROBLEM]) else None
    except (RuntimeError, ValueError):
        told = None
    if told is None:
        late = "timed out" in why.lower() or "timeout" in why.lower()
        what = f"does not answer since {patience().total_seconds():g} s" if late else "has ended"
        return EnvironmentProblem(
            f"another process of this run {what} ({why.splitlines()[0].split('. This is typically')[0]})",
            "Look above for why. What was saved goes on with --resume.",
        )
    if told["kind"] == "Interrupted":
        return system.Interrupted(told["message"])
    found = getattr(errors, told["kind"])(told["message"], told["fix"])
    found.told = True
    return found
