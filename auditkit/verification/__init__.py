"""The numbered checks of ``auditkit verify``, and the report.

For a reader: ``shared_checks`` (1 to 3, for studies and recordings alike), ``study_checks`` (the
order of all ten), ``consistency`` and ``listing`` (4), ``rng_contracts`` (5), ``pairing`` (5, 6,
7, 9), ``content`` (these over a whole run), ``recording_checks`` and ``verify_recording``,
``plan_binding`` and ``registering``, ``report_json``, ``countersigning``, ``reproduction``.
Check 8 is :mod:`auditkit.replay`, check 10 :mod:`auditkit.statistics.estimands`.
"""
