"""What a corpus says, from predictions that are sometimes wrong: shares, means, regression coefficients.

    predictions, codes -files-> arrays -shares, regression-> Estimate -words-> table and notes

correction.py is the one formula that all of them use. docs/estimates.md says why, and what it needs.
"""

from . import words
from .correction import Interval
from .files import Question, estimate_file
from .regression import regression
from .shares import Estimate, mean, share

__all__ = ["Estimate", "Interval", "Question", "estimate_file", "mean", "regression", "share", "words"]
