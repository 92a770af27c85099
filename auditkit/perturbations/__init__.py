"""Perturbations: the named changes at t0, and their registry.

For a reader: ``base`` (what a perturbation is), ``optimizer_resets``, ``batchnorm``, ``version_1``
(what earlier builds did under the same names), ``order``
(those that change no state: carry, and the order ones, whose permutations are in
:mod:`auditkit.formats.ordering`), ``ulp`` (the placebo), ``registry`` (names to perturbations,
plug-ins included). What each may touch is declared in :mod:`auditkit.records.declaration`.
"""
