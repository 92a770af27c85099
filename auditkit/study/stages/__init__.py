"""The stages of Branch-and-Hold. No stage imports another.

For a reader, in the order of a branch: ``snapshotter`` freezes the state at t0, ``forker``
restores it, ``perturber`` makes the one change, ``holder`` trains to the horizon, ``evaluator``
looks through the probe, ``auditor`` takes the evidence of every step; ``describer`` says what it
is about. :mod:`auditkit.study.worker.jobs` runs them one after the other.
"""
