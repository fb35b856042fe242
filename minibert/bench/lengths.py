"""How long the texts of a case are: made distributions, or the lengths of a table's own column.

    fixed:128               every text has 128 tokens
    uniform:512             each length from 1 to 512 is as likely
    normal:512              around half of 512, a quarter of it wide, cut off at 1 and 512
    zipf:512                length n is drawn as often as 1 / n, up to 512: many short, few long
    one:1024                one text of 1024 tokens among texts a sixteenth as long
    csv:FILE:COLUMN         as long as the texts of that column are in a model's tokens

Texts are drawn until a budget of tokens is full; the last one is shortened to fill it (of `fixed`, what doesn't fit is
left out). All is drawn from a seed: equal in, equal out.

In:  such a word, a budget of tokens.   Out: Lengths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError, nearest

FORMS = "fixed:N, uniform:N, normal:N, zipf:N, one:N or csv:FILE:COLUMN"
BUDGET = {"cpu": 4096, "cuda": 16384}  # tokens of a case
SHORT = 16  # `one`: the others are so many times as short
MOST = 2**17  # tokens of a text: more is a slip of the pen

# A length for each of `count` draws, up to the longest.
DRAWS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "fixed": lambda generator, longest, count: np.full(count, longest),
    "uniform": lambda generator, longest, count: generator.integers(1, longest + 1, count),
    "normal": lambda generator, longest, count: np.clip(
        generator.normal(longest / 2, longest / 4, count).round().astype(int), 1, longest
    ),
    "zipf": lambda generator, longest, count: 1
    + generator.choice(longest, count, p=harmonic(longest)),
    "one": lambda generator, longest, count: np.array(
        [longest] + [max(1, longest // SHORT)] * (count - 1)
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Lengths:
    """The lengths of one case's texts, under the name they were asked for by."""

    name: str
    texts: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """All of them: the useful ones, since nothing here is padding."""
        return sum(self.texts)

    @property
    def padding_share(self) -> float:
        """The share of padding, were they put into a rectangle."""
        return 1 - self.tokens / (len(self.texts) * max(self.texts))

    def facts(self) -> dict[str, object]:
        """What stands of them in a row."""
        return {
            "name": self.name,
            "texts": len(self.texts),
            "tokens": self.tokens,
            "longest": max(self.texts),
            "mean": self.tokens / len(self.texts),
            "padding_share": self.padding_share,
        }


def drawn(word: str, budget: int, seed: int = 0, weights: str = "") -> Lengths:
    """The lengths that `word` asks for; `weights`: whose tokens a column's texts are counted in.

    Raises ConfigError for a word that is none, DataError for a column without texts.
    """
    generator = np.random.default_rng(seed)
    kind, _, rest = word.partition(":")
    if kind == "csv":
        known = of_column(rest, weights)
        lengths = generator.choice(known, budget)
    elif kind in DRAWS and rest.isdecimal() and 1 <= int(rest) <= MOST:
        lengths = DRAWS[kind](generator, int(rest), max(1, budget))
    else:
        raise ConfigError(
            f"--lengths {word}: write {FORMS}, N from 1 to {MOST:,}{nearest(kind, [*DRAWS, 'csv'])}"
        )
    return Lengths(word, filled(lengths.tolist(), budget, whole=kind == "fixed"))


def filled(lengths: list[int], budget: int, whole: bool) -> tuple[int, ...]:
    """The first of them, up to the budget; the last one shortened, or left out if they must stay `whole`.

    A first one that is longer than the budget stays as it is: it is what was asked for.
    """
    kept, room = [lengths[0]], budget - lengths[0]
    for length in lengths[1:]:
        if room <= 0 or (whole and length > room):
            break
        kept.append(min(length, room))
        room -= kept[-1]
    return tuple(kept)


def harmonic(longest: int) -> np.ndarray:
    """Probabilities of 1 ... longest, each as 1 / n."""
    shares = 1 / np.arange(1, longest + 1)
    return shares / shares.sum()


def of_column(rest: str, weights: str) -> np.ndarray:
    """The lengths, in tokens with [CLS] and [SEP], of the texts in FILE:COLUMN, cut where the model cuts."""
    from .. import catalogue
    from ..tokenize import open_with_limit

    texts = texts_of(rest, "--lengths")
    tokenizer, limit = open_with_limit(catalogue.locate_weights(weights, texts_only=True))
    return tokenizer.encode(texts, max_tokens=limit).lengths


def texts_of(rest: str, option: str) -> list[str]:
    """The texts in FILE:COLUMN that aren't blank; `option` asked for them as csv:FILE:COLUMN."""
    from ..data.tables import read_table

    file, _, column = rest.rpartition(":")
    if not file:
        raise ConfigError(f"{option} csv:{rest}: write csv:FILE:COLUMN")
    frame = read_table(Path(file)).frame
    if column not in frame:
        raise DataError(
            f"{file} has no column {column!r}{nearest(column, frame)}", f"It has {', '.join(frame)}."
        )
    texts = [text for text in frame[column] if isinstance(text, str) and text.strip()]
    if not texts:
        raise DataError(f"{file}: column {column!r} has no texts")
    return texts
