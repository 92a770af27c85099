"""A run read back, with distrust, and compared with another: what verify and replay rest on.

For a reader: ``reader`` (what was signed, as a verifier reads it), ``comparison`` (where a replay
first differs from the record, and the class of drift), ``distances`` (how far), ``verdicts``
(findings to verdict and exit code).
"""
