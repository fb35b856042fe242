"""The gallery's page names every finding and picture, and its numbers are those that the script measures."""

from __future__ import annotations

import re

import pytest

from .pages import ROOT, alike, script

FOLDER = ROOT / "docs" / "gallery"
NAMES = ("previous", "separators", "scaling", "order", "senses")


def parts() -> dict[str, str]:
    """The page's part on each finding, by the name in its command."""
    page = (FOLDER / "README.md").read_text("utf-8")
    cut = re.split(r"^## ", page, flags=re.M)[1:]
    return {
        found[1]: part
        for part in cut
        if (found := re.search(r"^python docs/gallery/draw.py (\w+)$", part, re.M))
    }


def printed(part: str) -> str:
    return re.search(r"```text\n(.*?)```", part, re.S)[1]


def test_the_page_has_every_finding_with_picture_numbers_and_doubt():
    found = parts()
    assert tuple(found) == NAMES
    for name, part in found.items():
        assert f'src="{name}.png"' in part and 'alt="' in part and "*How sure.*" in part
        assert 0 < (FOLDER / f"{name}.png").stat().st_size < 150_000


@pytest.mark.parametrize("name", NAMES)
def test_a_number_in_the_text_is_one_that_was_measured(name):
    part = parts()[name]
    text = part.replace(printed(part), "")
    numbers = re.findall(r"\d\.\d{2,}|\d+\.\d{3}", text)
    assert not [n for n in numbers if n not in printed(part)]
    assert numbers


def test_the_table_of_other_sentences_has_the_same_numbers():
    page = (FOLDER / "README.md").read_text("utf-8")
    ours = " ".join(row.split("|")[2] for row in re.findall(r"^\|.*\|$", page, re.M))
    measured = "".join(map(printed, parts().values()))
    assert len(re.findall(r"\d\.\d{3}", ours)) > 8
    assert not [n for n in re.findall(r"\d+\.\d{3}|\b\d+\b", ours) if n not in measured]


def test_the_readme_shows_pictures_that_there_are():
    section = (
        (ROOT / "README.md").read_text("utf-8").partition("## What can be seen")[2].partition("\n## ")[0]
    )
    shown = re.findall(r"docs/gallery/(\w+)\.png", section)
    assert 2 <= len(shown) <= 3 and set(shown) <= set(NAMES) and "docs/gallery/README.md" in section
    measured = "".join(map(printed, parts().values()))
    assert not [n for n in re.findall(r"\d\.\d{2,}", section) if n not in measured]


def test_the_hour_quotes_what_was_measured():
    page = (ROOT / "docs" / "hour.md").read_text("utf-8")
    without = re.search(r"In MiniLM without it, (\d+) of 72 heads .*; with it, (\d+) do", page)
    line = re.search(r"heads with less than two tokens in a look +(\d+) +(\d+)", printed(parts()["scaling"]))
    assert line.groups() == without.groups()[::-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_script_measures_what_the_page_shows(name, minilm, tmp_path, capsys, monkeypatch):
    drawing = script("draw", FOLDER)
    monkeypatch.setattr("sys.argv", ["draw.py", name, "--out", str(tmp_path)])
    drawing.main()
    alike(printed(parts()[name]), capsys.readouterr().out)
    assert 20_000 < (tmp_path / f"{name}.png").stat().st_size < 150_000
