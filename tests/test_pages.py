"""docs/shapes.md and docs/numerics.md: what stands under a block of code is what it prints."""

from __future__ import annotations

import re

import pytest

from minibert import batch

from .helpers import toy_batch, toy_encoder
from .pages import ROOT, alike, blocks, ran

PAGES = ("docs/shapes.md", "docs/numerics.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_what_it_prints_below(page):
    text = (ROOT / page).read_text("utf-8")
    assert len(blocks(page)) == text.count("```python") == text.count("```text") >= 4
    assert max(len(line) for code, _ in blocks(page) for line in code.splitlines()) <= 110


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_prints_what_it_shows(page, minilm):
    names: dict = {}
    for code, shown in blocks(page):
        alike(shown, ran(code, names))


def test_a_changed_number_or_word_is_seen():
    alike("loss 0.123 of 4e-02", "loss 0.124  of 5e-02\n")
    for other in ("loss 0.125 of 4e-02", "lost 0.123 of 4e-02", "loss 0.123", "loss 0.123 of 4e-01"):
        with pytest.raises((AssertionError, ValueError)):
            alike("loss 0.123 of 4e-02", other)
    with pytest.raises(AssertionError):
        alike("66 heads", "67 heads")


def test_the_page_of_shapes_knows_every_letter_and_every_traced_tensor():
    page = (ROOT / PAGES[0]).read_text("utf-8")
    alphabet = re.search(r"One alphabet for the whole repo:(.*?)\.\n", batch.__doc__, re.S)[1]
    letters = re.findall(r"\b([A-Z]) ", alphabet)
    assert len(letters) == 12 and all(re.search(rf"^\| {letter} \|", page, re.M) for letter in letters)
    for name in toy_encoder().trace(toy_batch()):
        assert f"`{name.rpartition('.')[2]}`" in page, name
