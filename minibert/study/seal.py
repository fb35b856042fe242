"""The proof that nothing was chosen by the test part: what was decided, and when its labels were read.

In:  a study's folder and choices.   Out: seal.json, and what does not fit it.

Whatever trains, tunes or chooses gets a test part without labels (data/withheld.py), and its answers to the test
texts are stored unscored. Then the choices are written into seal.json, with the sha256 of every stored answer, and
only then are the labels read: `Ledger.open`. What is chosen or answered afterwards has another sha256, and
`Ledger.problems` says so.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import system
from ..folder import finite, read_json

FILE = "seal.json"


@dataclasses.dataclass(frozen=True)
class Ledger:
    """seal.json of a study's folder."""

    folder: Path

    @property
    def facts(self) -> dict[str, Any]:
        """What is written there; {} before any choice."""
        return read_json(self.folder / FILE)

    @property
    def openings(self) -> list[dict[str, Any]]:
        """When the labels were read, and after which choices."""
        return self.facts.get("openings", [])

    def open(self, choices: dict[str, Any], answers: Iterable[Path]) -> None:
        """Write down what was chosen and answered; from here on the labels may be read. A study that is opened
        again as it was is not opened a second time."""
        choices = json.loads(json.dumps(finite(choices)))
        now = {"choices": choices, "choices_sha256": digest(choices), "answers": self.hashes(answers)}
        last = self.openings[-1] if self.openings else {}
        if all(last.get(name) == value for name, value in now.items()):
            return
        now = {"at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **now}
        text = json.dumps({"openings": [*self.openings, now]}, indent=1, ensure_ascii=False)
        system.write_text(self.folder / FILE, text + "\n")

    def hashes(self, answers: Iterable[Path]) -> dict[str, str]:
        """sha256 by path below the study's folder."""
        return {str(p.relative_to(self.folder).as_posix()): system.sha256(p) for p in sorted(answers)}

    def problems(self, choices: dict[str, Any]) -> list[str]:
        """What does not fit what was written before the labels were read; [] where all does.

        choices   as they follow from the validation scores now
        """
        if not self.openings:
            return ["the labels of the test part were not read yet"]
        last, out = self.openings[-1], []
        if len(self.openings) > 1:
            out.append(
                f"the labels were read {len(self.openings)} times: the study was extended after it had been scored"
            )
        if digest(json.loads(json.dumps(finite(choices)))) != last["choices_sha256"]:
            out.append("the choices are not those that were written down before the labels were read")
        first = {name: sha256 for one in reversed(self.openings) for name, sha256 in one["answers"].items()}
        changed = [
            name
            for name, sha256 in first.items()
            if not (self.folder / name).is_file() or system.sha256(self.folder / name) != sha256
        ]
        if changed:
            out.append(
                f"{len(changed)} files of answers changed after the labels were read: {', '.join(changed[:3])}"
            )
        return out


def digest(value: Any) -> str:
    """sha256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
