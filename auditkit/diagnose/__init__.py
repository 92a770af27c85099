"""Why do two runs differ: ``diff`` and ``doctor``.

For a reader: ``runs`` and ``manifest_texts`` (what can be compared), ``first_difference`` (of
traces in pieces) and ``run_difference``; ``trials`` (the same command several times) and
``doctor``.
"""
