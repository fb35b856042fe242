"""What differs between Linux, macOS and Windows, each with a fallback: durable writes, locks, signals.

Nothing else in the package imports fcntl, msvcrt, resource or signal, or calls fsync.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import EnvironmentProblem


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut, where the platform can (not Windows)."""
    with contextlib.suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def cache() -> Path:
    """Our cache: MINIBERT_CACHE, else the platform's folder for what can be fetched again."""
    if named := os.environ.get("MINIBERT_CACHE"):
        return Path(named).expanduser()
    base = {
        "win32": os.environ.get("LOCALAPPDATA") or "~/AppData/Local",
        "darwin": "~/Library/Caches",
    }.get(sys.platform) or (os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(os.path.expanduser(base)) / "minibert"


def default_mode() -> int:
    """The permissions a new file would have under the process's umask."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, else it is removed.

    The old file stays whole until the new one is complete and synced. A full disk raises
    EnvironmentProblem and leaves the old file as it was; where only the last step fails, as on Windows
    while another program holds the old file open, the new one is kept and named.
    """
    path, part, done = Path(path), None, False
    try:
        path = path.resolve() if path.is_symlink() else path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        mode = path.stat().st_mode & 0o777 if path.exists() else default_mode()
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
        os.close(handle)
        part = Path(name)
    except OSError as problem:
        raise disk_problem(path, problem) from problem
    try:
        yield part
        with open(part, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(part, mode)
        done = True
        os.replace(part, path)
        part = None
        fsync_folder(path.parent)
    except OSError as problem:
        if not done:
            raise disk_problem(path, problem) from problem
        kept, part = part, None
        raise EnvironmentProblem(
            f"{path} could not be replaced: {problem}", f"What was to stand there is in {kept}."
        ) from problem
    finally:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink()


def disk_problem(path: Path, problem: Exception) -> EnvironmentProblem:
    """The error for a write that failed, with how much room there is."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(next(p for p in path.absolute().parents if p.is_dir())).free
        return EnvironmentProblem(
            f"{path} could not be written: {problem}",
            f"{free / 1e6:,.0f} MB are free there; the file that was there before is untouched.",
        )
    return EnvironmentProblem(f"{path} could not be written: {problem}")


def write_text(path: Path | str, text: str) -> None:
    """Write a whole UTF-8 text file, all or nothing."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def processes() -> tuple[int, int]:
    """Which process this is and how many there are, as torchrun tells it; (0, 1) without."""
    rank, size, place = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))
    return (int(rank), int(size)) if rank.isdecimal() and size.isdecimal() and place else (0, 1)


SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # that ask for a stop


class Interrupted(KeyboardInterrupt):
    """A signal that came where there is nothing to save yet; its text is the signal's name."""


class Stop:
    """Asks a loop to end at its next step: the first SIGINT or SIGTERM sets `requested` and says so.

    Inside `at_once()` the first one raises Interrupted instead. A second one ends the process with exit
    code 130. Outside the main thread, where Python forbids handlers, nothing is installed.
    """

    def __init__(self) -> None:
        self.requested = ""
        self.raises = False

    def __enter__(self) -> Stop:
        import signal

        self._old = {}
        for name in SIGNALS:
            number = getattr(signal, name, None)
            with contextlib.suppress(ValueError, OSError, TypeError):
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup, or a job behind "&": so it was wanted
                    self._old[number] = signal.signal(number, self._handle)
        return self

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises Interrupted where the program stands, so that it cleans up and ends."""
        self.raises = True
        try:
            yield
        finally:
            self.raises = False

    def meet(self, flag: bool = False) -> bool:
        """A single process meets nobody, and knows at any time what it was asked for."""
        return flag

    def _handle(self, number: int, frame: object) -> None:
        import signal

        if self.requested:
            os._exit(130)
        self.requested = signal.Signals(number).name
        if self.raises:
            raise Interrupted(self.requested)
        if processes()[0] > 0:  # the first one says it
            return
        with contextlib.suppress(OSError):  # no print: it may be what was interrupted
            os.write(
                2, b"\nstopping at the next step, to save what was reached; a second time ends at once\n"
            )

    def __exit__(self, *_: object) -> None:
        import signal

        for number, old in self._old.items():
            with contextlib.suppress(ValueError, OSError, TypeError):
                signal.signal(number, old)
            around = getattr(old, "__self__", None)
            if isinstance(
                around, Stop
            ):  # of several runs: a signal that came too late for this one is theirs
                around.requested = around.requested or self.requested


def typed(path: Path | str) -> str:
    """A path as one word of a command line."""
    return f'"{path}"' if " " in str(path) else str(path)


def me() -> dict[str, Any]:
    """This process, as `alive` knows it again."""
    return {"pid": os.getpid(), "host": platform.node()}


def alive(process: dict[str, Any]) -> bool:
    """Whether another process that `me` described runs on this machine; False where that can't be told."""
    pid, host = process.get("pid"), process.get("host")
    if os.name != "posix" or host != platform.node() or not isinstance(pid, int) or pid in (0, os.getpid()):
        return False  # on Windows, os.kill with any number ends the process
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def lock(path: Path | str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold `path` alone among processes; `waiting()` is called once if another one holds it.

    The file stays (removing it would let a third process lock a different one). Where neither
    fcntl nor msvcrt exists, and on a disk that knows no locks, nothing is held: callers still
    write with `replacing`, so the worst is work done twice.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        acquire, release = lock_functions(file.fileno())
        if not acquire(False):
            waiting()
            acquire(True)
        try:
            yield
        finally:
            release()


def lock_functions(handle: int) -> tuple[Callable[[bool], bool], Callable[[], object]]:
    """(acquire(block) -> held, release()) for an open file, from what this platform has."""
    with contextlib.suppress(ImportError):
        import fcntl

        def acquire(block: bool) -> bool:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
            except BlockingIOError:
                return False
            except OSError:  # a network disk without locks
                return True
            return True

        return acquire, lambda: None  # closing the file releases it
    with contextlib.suppress(ImportError):
        import msvcrt

        def acquire(block: bool) -> bool:
            while True:
                with contextlib.suppress(OSError):
                    os.lseek(handle, 0, os.SEEK_SET)
                    msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
                    return True
                if not block:
                    return False
                time.sleep(0.2)

        def release() -> None:
            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

        return acquire, release
    return (lambda block: True), (lambda: None)


def give_back_memory() -> None:
    """Let the system have what was freed. glibc keeps it, in pieces that the next model may not fit into."""
    with contextlib.suppress(OSError, AttributeError):  # no glibc, as on macOS and Windows
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def own_memory(peak: bool = False) -> int:
    """Bytes of RAM that this process holds, or the most it held; 0 where the system doesn't tell."""
    with contextlib.suppress(OSError):
        text = Path("/proc/self/status").read_text("ascii")
        return 1024 * int(text.partition("VmHWM:" if peak else "VmRSS:")[2].split()[0])
    with contextlib.suppress(ImportError):  # macOS has the peak alone, in bytes; Windows neither
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 0


def forget_own_peak() -> None:
    """Count `own_memory(peak=True)` from here on, where Linux allows it."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def processor_time() -> dict[str, float]:
    """Seconds of all cores since the system began: all, busy, stolen by other machines, and our own; {} elsewhere."""
    own = os.times()
    with contextlib.suppress(OSError), open("/proc/stat", encoding="ascii") as file:
        user, nice, system, idle, wait, irq, soft, steal = map(int, file.readline().split()[1:9])
        tick, busy = os.sysconf("SC_CLK_TCK"), user + nice + system + irq + soft
        ours = own.user + own.system + own.children_user + own.children_system
        return {
            "all": (busy + idle + wait + steal) / tick,
            "busy": busy / tick,
            "steal": steal / tick,
            "own": ours,
        }
    return {}


def last_level_cache() -> int:
    """Bytes of the largest cache of the first core; 32 MiB where the system doesn't tell."""
    units, sizes = {"K": 2**10, "M": 2**20, "G": 2**30}, [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError):
            text = path.read_text("ascii").strip()
            sizes.append(int(text.rstrip("KMG")) * units.get(text[-1], 1))
    return max(sizes) or 32 * 2**20


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
