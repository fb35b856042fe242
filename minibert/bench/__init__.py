"""How fast, how hungry and how wrong: what `minibert bench` measures.

    lengths.py      the texts' lengths: made ones, or those of a table's column
    attention.py    the plan (kernels x shapes x lengths x ...), and one row for each of its lines
      clock.py      contestants in turn, round by round, in a random order
      ratios.py     from their rounds to a speed-up with its interval
      work.py       operations and bytes by formula; what the machine can do at most
      memory.py     the most memory that one call takes, in a process of its own
      errors.py     how wrong, in units of plain PyTorch's error
      conditions.py the machine, its settings, and what else it did meanwhile
    encoder.py      reading texts, from the naive padded encoder to the fastest, beside other libraries
      steps.py      the steps: one change a line
      rectangles.py padded texts for an encoder that knows packs only
      ceiling.py    the encoder's matrix products alone
      peers.py      other libraries, each a process that reads when asked
      waterfall.py  its rows as text
    compare.py      two files of results: what got slower
    calibrate.py    whether the clock and the intervals can be trusted on this machine
    table.py        rows as text, JSON and CSV
    page.py         rows as one page (page.html.j2), with its pictures
      pictures.py   one function a picture

In:  names of kernels, shapes, lengths.   Out: rows (attention.py says what stands in one).
"""
