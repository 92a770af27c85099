"""The five stages of Branch-and-Hold. No stage imports another.

For a reader: ``snapshotter``, ``forker``, ``perturber``, ``holder`` and ``evaluator`` (the branch
to its horizon, and its probe), ``auditor`` and ``describer`` (evidence, and what it is about).
:mod:`auditkit.study.worker.jobs` runs them one after the other.
"""
