"""Why two runs differ: ``diff`` of what two runs left, ``doctor`` of runs it starts itself.

For a reader: ``runs`` and ``manifest_texts`` (what can be compared), ``first_difference`` (of two
traces that come in pieces) and ``run_difference``; ``trials`` (the same command several times)
and ``doctor``.
"""
