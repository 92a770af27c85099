"""A run read back, with distrust, and set beside another.

For a reader: ``reader`` (a study's evidence), ``chunks`` and ``recorded_rows`` (a recording's),
``comparison``, ``first_difference`` and ``rows`` (where two traces differ), ``declared``,
``magnitudes`` and ``distances`` (how far), ``verdicts`` (findings to verdict and exit code).
"""
