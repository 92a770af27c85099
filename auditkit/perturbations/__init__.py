"""Perturbations: named changes at t0, and their registry.

For a reader: ``base`` (what a perturbation is), ``order``, ``resets``, ``ulp``, ``registry``
(names to perturbations, plug-ins included). What each may touch is declared in
:mod:`auditkit.records.declaration`.
"""
