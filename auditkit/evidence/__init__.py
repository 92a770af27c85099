"""A run read back, with distrust, and set beside another.

For a reader: ``reader`` (what was signed, as a verifier reads it), ``comparison`` (the first
difference of two traces, and its class), ``distances`` (how far), ``verdicts`` (findings to verdict
and exit code).
"""
