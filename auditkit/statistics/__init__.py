"""Numbers from tables: metrics, tests, intervals, estimands. No torch, no files.

For a reader: ``metrics`` (of probability tables), ``outcomes`` (the metrics of a whole study),
``inference`` and ``resampling`` (tests and intervals), ``multiplicity`` (Holm,
Benjamini-Hochberg, verdicts), ``persistence``, ``estimands`` (all of it together), ``agreement``
(two studies of one plan).
"""
