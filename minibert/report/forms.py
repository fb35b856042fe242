"""How the page speaks of each kind of task: its sections, its headings, its sentences. Data only.

In:  a Run.   Out: its Form, which the template asks instead of asking for the kind.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..kinds import KINDS, has_entities
from .read import Run


@dataclass(frozen=True)
class Form:
    """What differs on the page from kind to kind."""

    sections: tuple[tuple[str, str], ...]  # (id, heading) of those that only some kinds have
    mistakes: str  # heading of the mistakes
    none: str  # where there are none
    worst: str  # what leads them in, after the number of wrong texts
    adds: str  # what `predict` adds to a table
    example: str  # a text for model.predict, as Python writes it
    one: str = ""  # what the table by label has a row for
    some: str = "texts"  # what it counts
    about: str = ""  # how to read it
    marks: str = ""  # how to read the marks in a text


RATES = (
    "Precision: of the {some} given this {one}, the share that bears it. Recall: of the {some} that bear it, the "
    "share given it. F1 joins the two. The commonest {one} comes first."
)
FORMS = {
    "classification": Form(
        sections=(("classes", "Classes"), ("confusion", "Confusions")),
        mistakes="Mistakes",
        none="No test text was labelled wrongly.",
        worst="got a wrong label. Those of which the network was most sure, with the probability that it gave "
        "its answer:",
        adds="the label and a probability for each class",
        example='["a new text"]',
        one="class",
        about=RATES.format(some="texts", one="label").replace("commonest label", "commonest class"),
    ),
    "regression": Form(
        sections=(("fit", "Fit"),),
        mistakes="Largest errors",
        none="No test text has a number in both columns.",
        worst="",
        adds="the value",
        example='["a new text"]',
    ),
    "multilabel": Form(
        sections=(("classes", "Labels"),),
        mistakes="Mistakes",
        none="Every test text got exactly its labels.",
        worst="got a label too many or too few. Those of which the network was most sure:",
        adds="the labels, those with a probability of at least one half, and a probability for each label",
        example='["a new text"]',
        one="label",
        about=RATES.format(some="texts", one="label"),
    ),
    "entities": Form(
        sections=(("classes", "Entities"),),
        mistakes="Mistakes",
        none="Every entity of the test texts was found, and no other.",
        worst="got a wrong entity. Those with the most, missed and invented ones counted:",
        adds="a tag for each word, with a space between them",
        example='["words between spaces ."]',
        one="type",
        some="entities",
        about="An entity is found if its first word, its last word and its type are right. Precision: of the "
        "entities that the network marked, the share that is one. Recall: of the true entities, the share that it "
        "found. F1 joins the two. The commonest type comes first.",
        marks="A filled mark is right; a dashed one is wrong: missed, invented, or with another border or type.",
    ),
    "tags": Form(
        sections=(("classes", "Tags"), ("confusion", "Confusions")),
        mistakes="Mistakes",
        none="Every word of the test texts got its tag.",
        worst="got a wrong tag. Those with the most:",
        adds="a tag for each word, with a space between them",
        example='["words between spaces ."]',
        one="tag",
        some="words",
        about=RATES.format(some="words", one="tag"),
        marks="Marked are the words on which truth and answer differ.",
    ),
}


def form_of(run: Run) -> Form:
    """The form of a run: its kind's, and of words either that of entities or that of tags."""
    words = "entities" if has_entities(run.metrics.get("labels") or ()) else "tags"
    return FORMS[words if KINDS[run.kind].words else run.kind]
