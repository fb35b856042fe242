r"""E-mail addresses, phone numbers, links and @names of a table give way to a word in brackets: [data] mask.

In:  the words of [data] mask, a text or a table.   Out: the same with [email], [phone], [link] and [name].

A table is masked before anything else is done with it, so what is learned, stored, shown or told never held what
was masked. Brackets and these words are tokens of their own to BERT's published vocabulary, and a reader sees what
was there. Patterns find what people write, not everything that could be meant: "anna at home dot de" stays.

Every pattern is bounded or possessive: a text of n characters takes time in proportion to n, whatever it holds.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ..kinds import KINDS, words_of
from ..spec import TaskSpec
from .tables import Table

# name@host.de, and with (at) or [dot] for the signs. The name begins where a word does.
AT = r"(?:[@＠]|[ ]?[(\[{][ ]?at[ ]?[)\]}][ ]?)"
DOT = r"(?:\.|[ ]?[(\[{][ ]?(?:dot|punkt)[ ]?[)\]}][ ]?)"
EMAIL = rf"\b(?<![@＠])\w[\w.+%-]{{0,63}}+{AT}(?:[\w-]{{1,63}}+{DOT}){{1,8}}(?:[^\W\d_]{{2,24}}|xn--[\w-]{{2,59}})(?!\w)"

# scheme://..., www...., and a bare domain: under a common ending, or any of two letters before a path, as of
# shortened links. What ends a sentence or closes a bracket is no part of it.
IN_LINK = r"[^\s<>\"“”„«»。、，！？；：（）【】「」]"
ENDS_LINK = r"[^\s<>\"“”„«»。、，！？；：（）【】「」.,;:!?'’)\]}…]"
DOMAINS = (
    "com|org|net|edu|gov|mil|int|info|biz|eu|io|app|dev|xyz|online|shop|site|blog|news|tv|co|"
    "de|ch|fr|nl|uk|ru|pl|cz|dk|se|fi|pt|gr|hu|ro|jp|cn|kr|br|mx|au|nz|ca"
)
PATH = rf"/{IN_LINK}*{ENDS_LINK}"
LINK = (
    rf"\b[a-z][a-z\d+.-]{{1,15}}+://{IN_LINK}*{ENDS_LINK}|\bwww\.{IN_LINK}*{ENDS_LINK}|"
    rf"(?<![\w@＠.-])(?:[^\W_][\w-]{{0,62}}+\.){{1,12}}"
    rf"(?:(?:{DOMAINS})(?![\w@＠-])(?:{PATH})?|(?!js|py|md|cs|rb|sh|ps)[a-z]{{2}}{PATH})"
)

# @name, also .@name and @name@host.social; no time or price (@5pm, @3.50), nothing inside a word (tod@s).
NAME = (
    r"(?<![\w@＠])[@＠](?!\d[\d.,:]*(?:[ap]m|h|uhr)?(?!\w))\w{1,64}+(?:[.-]\w{1,64}+){0,4}"
    r"(?:[@＠][\w-]{1,63}+(?:\.[\w-]{1,63}+){1,8})?"
)

# Of digits alone nothing says that they are a phone number, so one begins with + or 00 and a country, with 0 and an
# area, has the groups of North America, or follows a word such as "Tel.". A dot and a space end a sentence.
GAP = r"(?:[ \u00a0\u202f]{0,2}[\-‐‑–/()][ \u00a0\u202f()\-]{0,2}|[ \u00a0\u202f]{1,2}|\.)?"
DATE = r"\d\d?[./-]\d\d?[./-](?:(?:19|20)\d\d(?!\d)|\d\d(?![./-]?\d)|[ ]?[-–])"
MONEY = r"[\d +.]{4,20}[€$£%]"
PLUS = rf"(?!{MONEY})(?:\(\+[1-9]\d{{0,2}}\)|\+[1-9])(?:{GAP}\d){{7,14}}"
ZEROS = rf"(?:\(00[1-9]\d{{0,2}}\)|00[1-9])(?:{GAP}\d){{7,14}}"
AREA = rf"(?!{DATE})(?:\(0[1-9]\d{{0,4}}\)(?:{GAP}\d){{4,10}}|0[1-9](?:{GAP}\d){{7,12}})"
AMERICA = r"(?<![.-])(?:1[ .-])?(?:\([2-9]\d\d\)[ ]?|[2-9]\d\d[ .-])\d{3}[ .\-–]\d{4}(?![-.]?\d)"
TOLD = (
    r"\b(?:tel(?:efon|ephone)?|phone|fon|fax|mobil(?:e|funk)?|handy|cell|hotline|whatsapp)"
    rf"[ ]?(?:nr|no|number|nummer)?[ ]?[.:][.: ]{{0,3}}(?P<told>\+?\(?\d(?:{GAP}\d){{4,14}})"
)
FIRST = rf"(?:(?<![\w+]){PLUS}|(?<![\w+$€£#,])(?<!\d[ ./-])(?:{ZEROS}|{AREA}|{AMERICA}))(?!\w)"
PHONE = rf"{FIRST}(?:[ ]{{1,2}}(?:{PLUS}|{ZEROS}|{AREA}|{AMERICA})(?!\w))*|{TOLD}(?!\w)"  # one after the other is one

# In the order in which they are tried at each place: an address is no name, a link may hold both.
PATTERNS = {"email": EMAIL, "link": LINK, "name": NAME, "phone": PHONE}
MEANT = {"email": "e-mail addresses", "phone": "phone numbers", "link": "links", "name": "@names"}


@functools.cache
def pattern(wanted: tuple[str, ...]) -> re.Pattern[str]:
    """One pattern for all that is wanted, a named group each."""
    parts = [f"(?P<{name}>{one})" for name, one in PATTERNS.items() if name in wanted]
    return re.compile("|".join(parts), re.IGNORECASE)


def mask(text: str, wanted: Sequence[str], counts: Counter[str] | None = None, by_word: bool = False) -> str:
    """A text without what is wanted to be masked. `counts` is told how often each was found.

    `by_word`: as many words come out as go in, where each word of a text has a tag.
    """
    if not wanted:
        return text

    def word(found: re.Match[str]) -> str:
        name = found.lastgroup or ""  # the outermost
        kept = found.start("told") - found.start() if name == "phone" and found["told"] else 0
        if counts is not None:
            counts[name] += 1
        times = len(words_of(found[0][kept:])) if by_word else 1
        return found[0][:kept] + " ".join([f"[{name}]"] * times)

    return pattern(tuple(wanted)).sub(word, text)


Found = dict[str, Counter[str]]  # what was found, by column


def mask_frame(spec: TaskSpec, frame: pd.DataFrame, *texts: str) -> tuple[pd.DataFrame, Found, Found]:
    """(the frame masked, what was masked, what was found and stays).

    Label, group and split_column stay, which the task knows by their words; every other column may hold a text.
    `texts`: columns that are texts even if they are among these.
    """
    d, out, gone, stays = spec.data, frame.copy(), {}, {}
    spared = {d.label, d.group, d.split_column} - {d.text, d.pair, *texts}
    for name in frame.columns:
        counts: Counter[str] = Counter()
        cells = [mask(cell, d.mask, counts, KINDS[spec.task.kind].words) for cell in frame[name]]
        if counts:
            (stays if name in spared else gone)[name] = counts
        if name in gone:
            out[name] = pd.Series(cells, frame.index, object)
    return out, gone, stays


def masked(spec: TaskSpec, table: Table) -> Table:
    """A table as [data] mask wants it, with notes of what was found. One that is masked already stays as it is."""
    if not spec.data.mask:
        return table
    frame, gone, stays = mask_frame(spec, table.frame)
    name = Path(table.path).name
    notes = [f'{name}: masked in "{column}": {told(counts)}.' for column, counts in gone.items()]
    notes += [
        f'{name}: "{column}" holds {told(counts)} and stays as it is: it says which label, group or part a row has.'
        for column, counts in stays.items()
    ]
    return replace(table, frame=frame, notes=tuple(dict.fromkeys((*table.notes, *notes))))


def told(counts: Counter[str]) -> str:
    """What was found, in words."""
    return ", ".join(f"{counts[name]:,} {what}" for name, what in MEANT.items() if counts[name])
