"""Other encoders beside ours: programs of a folder, each a process that reads when asked and sleeps else.

In:  a folder with files encoder_*.py, each a program; a job.
Out: Peer, what each of its contestants said of itself; `ask` lets one read.

They speak in lines of JSON. The first line on a program's stdin is the job (`Job` in benchmarks/peers/serving.py),
its answer {"contestants": [...]}; each further one {"name", "warm"} is answered when all texts, or if warm the
last batch, are read: {"tokens"}. Here nothing of theirs is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, EnvironmentProblem

PROGRAMS = "encoder_*.py"
PATIENCE = 10  # seconds that a program may take to end


@dataclass
class Peer:
    """One contestant of a program.

    why       it can't run, or ""
    numbers   float32, or what stands in for it
    settings  what it was set to, and by trial chose
    error     of its answers beside ours: {"of", "largest", "cosine"}
    """

    name: str
    what: str = ""
    numbers: str = "float32"
    why: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)
    ask: Callable[[bool], None] = lambda warm: None


class Program:
    """A process and the file of what it says aside."""

    def __init__(self, file: Path, folder: Path, threads: int):
        self.file, self.log = file, folder / "log"
        counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
        variables = dict.fromkeys(counts, str(threads)) | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        with open(self.log, "w", encoding="utf-8") as aside:
            self.process = subprocess.Popen(
                [sys.executable, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=aside,
                env=os.environ | variables, text=True, encoding="utf-8",
            )  # fmt: skip

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Its answer; EnvironmentProblem with its last words where it ended instead."""
        with contextlib.suppress(OSError):  # a broken pipe: no answer will come either
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            words = [line for line in self.log.read_text("utf-8", "replace").splitlines() if line.strip()]
            raise EnvironmentProblem(f"{self.file.name} ended: {words[-1] if words else 'without a word'}")
        return json.loads(answer)

    def peers(self, job: dict[str, Any]) -> list[Peer]:
        """Give it the job; what it can run, or one Peer that says why it can't run at all."""
        try:
            told = self.ask(job)["contestants"]
        except EnvironmentProblem as problem:
            return [Peer(self.file.stem.removeprefix("encoder_"), why=problem.message)]
        return [Peer(**one, ask=lambda warm, name=one["name"]: self.read(name, warm)) for one in told]

    def read(self, name: str, warm: bool) -> None:
        """Until one of its contestants has read all texts, or the last batch."""
        self.ask({"name": name, "warm": warm})

    def end(self) -> None:
        """It ends by itself when nothing more can be asked."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def started(
    folder: Path, job: dict[str, Any], work: Path, tell: Callable[[str], None]
) -> Iterator[list[Peer]]:
    """Start a folder's programs one after the other; inside, they answer."""
    files = sorted(folder.glob(PROGRAMS))
    if not files:
        raise ConfigError(
            f"--peers {folder}: there is no {PROGRAMS} in it", "Name benchmarks/peers of a checkout."
        )
    with contextlib.ExitStack() as running:
        found = []
        for file in files:
            tell(f"{file.name}: made ready, and tried for its best batches")
            own = work / file.stem
            own.mkdir()
            program = Program(file, own, job["threads"])
            running.callback(program.end)
            found += program.peers(job | {"work": str(own)})
        yield found
