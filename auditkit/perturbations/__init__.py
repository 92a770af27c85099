"""Perturbations: one named change at t0 a file, and their registry.

For a reader: ``base`` (what a perturbation is), ``carry``, ``optimizer``, ``batchnorm``,
``order``, ``ulp``, ``registry`` (names to perturbations, plug-ins included). What each may touch
is declared in :mod:`auditkit.records.perturbation`.
"""
