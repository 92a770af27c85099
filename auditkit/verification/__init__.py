"""The numbered checks of ``auditkit verify``, and the report.

For a reader: ``procedure`` (all ten of a study, in order; its docstring says how a check is
added), then a module for each that is of a size: ``authenticity`` (1 to 3, and what every
verification shares: request, report), ``consistency`` (4), ``rng_contract`` (5), ``order`` (6),
``fork`` (7), ``noise_floor`` (9); ``recordings`` and ``recording_traces`` (1 to 5 and 8 of a
recording), ``plan_binding`` and ``rebuilding``, ``report_json``, ``countersigning``,
``reproduction``.
Check 8 is :mod:`auditkit.replay`, check 10 :mod:`auditkit.statistics.estimands`.
"""
