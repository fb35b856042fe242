"""Writes that are all or nothing, locks among processes, and signals that ask for a stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from minibert import system
from minibert.errors import EnvironmentProblem

posix = pytest.mark.skipif(os.name != "posix", reason="signals and modes of POSIX")


# --- writing --------------------------------------------------------------------------------------


def test_a_whole_file_or_none(tmp_path):
    path = tmp_path / "sub" / "a.txt"
    system.write_text(path, "one\n")
    with pytest.raises(RuntimeError), system.replacing(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "one\n" and os.listdir(path.parent) == ["a.txt"]


def test_text_is_utf8_with_plain_line_ends(tmp_path):
    system.write_text(tmp_path / "a", "é\nb\r\n")
    assert (tmp_path / "a").read_bytes() == "é\nb\r\n".encode()


@posix
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_umasks_mode(tmp_path, umask, mode):
    old = os.umask(umask)
    try:
        system.write_text(tmp_path / "a", "x")
        assert os.umask(umask) == umask, "the umask was changed"
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


@posix
def test_an_old_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    system.write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new" and real.stat().st_mode & 0o777 == 0o640


@posix
def test_a_full_disk_leaves_the_old_file(tmp_path):
    import resource

    path = tmp_path / "a"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails instead of killing us
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(EnvironmentProblem, match=r"a could not be written.*\n.*MB are free"):
            system.write_text(path, "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("place", ["file/a", "folder"])
def test_a_place_that_can_not_be_written_is_our_error(tmp_path, place):
    (tmp_path / "file").write_text("I am a file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(EnvironmentProblem, match="could not be written"):
        system.write_text(tmp_path / place, "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, texts, seen, stop = tmp_path / "a", ("a" * 40000, "b" * 40000), set(), threading.Event()
    system.write_text(path, texts[0])

    def read():
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(60):
        system.write_text(path, texts[i % 2])
    stop.set()
    reader.join()
    assert seen <= set(texts)


# --- locks ----------------------------------------------------------------------------------------

HOLD = """
import sys, time
from minibert import system
with system.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path, seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_waits_and_is_told(tmp_path):
    process, told = holder(tmp_path / "lock", 0.4), []
    start = time.monotonic()
    with system.lock(tmp_path / "lock", lambda: told.append(1)):
        assert process.wait() == 0 and time.monotonic() - start > 0.2
    process.stdout.close()
    assert told == [1]


def test_a_dead_holder_holds_nothing(tmp_path):
    process = holder(tmp_path / "lock", 60)
    process.kill()
    process.wait()
    process.stdout.close()
    told = []
    with system.lock(tmp_path / "lock", lambda: told.append(1)):
        assert not told


def test_without_a_lock_module_nothing_is_held(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # importing it now fails, as on Windows
    monkeypatch.setitem(sys.modules, "msvcrt", None)
    with system.lock(tmp_path / "lock"), system.lock(tmp_path / "lock"):
        pass


# --- signals --------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_asks(name):
    before = signal.getsignal(getattr(signal, name))
    with system.Stop() as stop:
        assert stop.requested == ""
        signal.raise_signal(getattr(signal, name))
        assert stop.requested == name
    assert signal.getsignal(getattr(signal, name)) is before


TWICE = """
import signal
from minibert import system
with system.Stop() as stop:
    signal.raise_signal(signal.SIGTERM)
    print(stop.requested, flush=True)
    signal.raise_signal(signal.SIGINT)
    print("still here")
"""


@posix
def test_the_second_signal_ends_the_process():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "SIGTERM\n")


@posix
def test_a_signal_that_was_ignored_stays_ignored():
    """As under nohup: closing the terminal must not end the run."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with system.Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.requested == ""
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


@posix
def test_where_there_is_nothing_to_save_a_signal_ends_it_at_once():
    with system.Stop() as stop:
        with pytest.raises(system.Interrupted, match="SIGTERM"), stop.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGTERM"


def test_outside_the_main_thread_it_only_never_stops():
    found = []

    def work():
        with system.Stop() as stop:
            found.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [""]


def test_what_could_not_take_its_place_is_kept_and_named(tmp_path, monkeypatch):
    """As on Windows, where another program may hold the old file open."""
    path = tmp_path / "answers.csv"
    path.write_text("old")

    def busy(*_):
        raise PermissionError("used by another process")

    monkeypatch.setattr(system.os, "replace", busy)
    with (
        pytest.raises(EnvironmentProblem, match="could not be replaced") as caught,
        system.replacing(path) as part,
    ):
        part.write_text("hours of answers")
    (kept,) = [p for p in tmp_path.iterdir() if p != path]
    assert (
        kept.read_text() == "hours of answers"
        and str(kept) in str(caught.value)
        and path.read_text() == "old"
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("code", ["HELD", "FREED"])
def test_what_a_process_holds_and_held(code):
    """In a process of its own: where others have run, what is let go of need not go back to the system."""
    done = subprocess.run([sys.executable, "-c", globals()[code]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


HELD = """
from minibert import system

system.forget_own_peak()
before = system.own_memory()
held = b"x" * 50_000_000
assert system.own_memory() - before > 45e6
del held
assert system.own_memory() - before < 25e6 and system.own_memory(peak=True) - before > 45e6
system.forget_own_peak()
assert system.own_memory(peak=True) - before < 25e6
"""

# The last of many pieces pins the heap below it, which would stay with the process but for this call.
FREED = """
from minibert import system

pieces = [bytes(60_000) for _ in range(4000)]  # 240 MB, each below what malloc maps by itself
pieces = pieces[3999:]
before = system.own_memory()
system.give_back_memory()
assert len(pieces) == 1 and before - system.own_memory() > 150e6
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc and /sys")
def test_processors_time_and_cache():
    before = system.processor_time()
    sum(range(3_000_000))
    spent = {name: value - before[name] for name, value in system.processor_time().items()}
    assert (
        spent["all"] >= spent["busy"] - 1e-6
        and spent["busy"] >= 0
        and spent["own"] >= 0
        and set(spent) == {"all", "busy", "steal", "own"}
    )
    assert 2**15 <= system.last_level_cache() < 2**32
