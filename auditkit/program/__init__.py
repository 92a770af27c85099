"""What a user writes for a study, and what is made of it.

For a reader: ``program``, ``session`` (a live program under study).
"""
