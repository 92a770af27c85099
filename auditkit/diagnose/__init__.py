"""Why do two runs differ: ``diff``, ``doctor``, and ``replay`` of a recording.

For a reader: ``runs`` (what can be compared) and ``differences``; ``repeats`` and ``doctor``;
``rerun``.
"""
