"""The stored answers of tests/golden are what the reference answers today."""

from __future__ import annotations

import json

import pytest

from .. import goldens
from . import tiny
from .make_goldens import derive, heads_of

pytestmark = pytest.mark.reference
pytest.importorskip("transformers", reason="the reference is not installed")

# Stored is float32 of a float64 computation, half a unit of 1.2e-7; some losses are float32 in themselves,
# with gradients that are as exact as that.
WITHIN = 1e-6
NEGLIGIBLE = 1e-9  # of the model's largest gradient: key biases have a true gradient of zero
WRITERS = {"transformers_version"}  # what a newer version may write otherwise


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_file_holds_the_heads_that_are_published(family):
    assert set(goldens.read(family)) == set(heads_of(family))


@pytest.mark.parametrize(("family", "head"), tiny.PAIRS)
def test_a_golden_is_what_the_reference_answers(family, head):
    stored, found = goldens.read(family)[head], derive(family, head)
    old, new = (json.loads(x.config) for x in (stored, found))
    assert {k: v for k, v in new.items() if k in old.keys() - WRITERS} == {
        k: v for k, v in old.items() if k not in WRITERS
    }
    assert found.shapes == stored.shapes and found.tensors.keys() == stored.tensors.keys()
    for name, tensor in found.tensors.items():
        if name != "gradients":
            assert goldens.share(tensor, stored.tensors[name], WITHIN) <= 1, name
    if head:
        shares = goldens.gradient_shares(found.tensors["gradients"], stored, family, WITHIN, NEGLIGIBLE)
        assert {name: share for name, share in shares.items() if not share <= 1} == {}
