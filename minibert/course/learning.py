"""Checks of chapters 7 to 9: how it learns, how it is fine-tuned and judged, how it is made fast.

In:  an answer.   Out: "" where it is right, else the rule that it breaks.
"""

from __future__ import annotations
