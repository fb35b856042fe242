"""The NumPy twin: the same BERT without torch, every derivative derived by hand beside the line that computes it.

Read layers.py (each operation, forward and backward), encoder.py (how they are put together), heads.py (answers
and losses), model.py (published weights) and train.py (AdamW and the loop). `python -m minibert.scratch` then
fine-tunes a published model on real texts in NumPy alone, and says whether it beats counting words.

Parameters, gradients and traced values have the names that they have in minibert/encoder.py and trace.py, so the
two can be held side by side, number by number. Letters as there: B texts, N tokens of all of them, n of one, D
width, H heads, K head width, F feed-forward width, V vocabulary, C classes. There is no dropout: what is random
can't be held against anything.
"""
