"""What is printed while something runs."""

from __future__ import annotations

import io
import sys

from minibert import progress
from minibert.progress import Bar, say


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_elsewhere_than_on_a_terminal_only_lines(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Bar("work", 3, "steps") as bar:
        for i in range(3):
            bar.advance(1, f"loss {i}")
        bar.line("epoch 1/1: loss 0.5")
    assert stream.getvalue() == "epoch 1/1: loss 0.5\n"


def test_of_several_processes_only_the_first_one_speaks(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "muted", True)
    with Bar("work", 3, "steps") as bar:
        bar.advance(1)
        bar.line("a line")
    say("a word")
    assert stream.getvalue() == ""


def test_on_a_terminal_a_bar_with_loss_and_time_left(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with Bar("work", 3, "steps") as bar:
        bar.advance(1, "loss 0.123")
        bar.progress.refresh()
        bar.line("a [line] that stays")
    assert "loss 0.123" in stream.getvalue() and "1/3 steps" in stream.getvalue()
    assert "a [line] that stays" in stream.getvalue()


def test_a_narrow_encoding_and_a_closed_stream_do_no_harm():
    raw = io.BytesIO()
    narrow = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    say("größe → 3", narrow)
    assert raw.getvalue() == b"gr??e ? 3\n"
    closed = io.StringIO()
    closed.close()
    say("gone", closed)


def test_a_title_is_no_markup(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Bar("a [/b] c", 3, "steps") as bar:
        bar.advance(1, "[/x]")
        bar.progress.refresh()  # here, not in rich's own thread, whose errors no test sees
    assert "a [/b] c" in stream.getvalue() and "[/x]" in stream.getvalue()
