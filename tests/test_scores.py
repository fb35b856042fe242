"""Published scores of the real weights, reached by our code. Slow: thousands of texts."""

from __future__ import annotations

import numpy as np
import pytest

import minibert
from minibert import catalogue, metrics
from minibert.errors import EnvironmentProblem

pytestmark = pytest.mark.slow


def sts(name: str) -> tuple[list[str], list[str], np.ndarray]:
    """An STS-B part. Tab-separated without quoting, 7 or 9 fields: CSV readers lose rows here."""
    try:
        path = catalogue.locate_data(name)
    except EnvironmentProblem as problem:
        pytest.skip(f"{name} can't be had here: {problem}")
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [r[5] for r in rows], [r[6] for r in rows], np.array([float(r[4]) for r in rows])


@pytest.mark.parametrize(
    ("name", "rows", "spearman", "pearson"),
    # embeddings-benchmark/results, all-MiniLM-L6-v2 at 8b3219a, mteb 1.12.75: STSBenchmark
    [("stsb-test", 1379, 0.82032, 0.82741), ("stsb-dev", 1500, 0.86716, 0.86962)],
)
def test_stsb(name, rows, spearman, pearson):
    left, right, scores = sts(name)
    assert len(scores) == rows
    model = minibert.load("all-MiniLM-L6-v2", device="cpu")
    a, b = model.embed(left), model.embed(right)
    cosine = (a * b).sum(1).astype(np.float64)
    found = metrics.value("spearman", scores, cosine), metrics.value("pearson", scores, cosine)
    print(f"{name}: Spearman {found[0]:.5f} (published {spearman}), Pearson {found[1]:.5f} ({pearson})")
    assert found[0] == pytest.approx(spearman, abs=0.0002)
    assert found[1] == pytest.approx(pearson, abs=0.0002)
