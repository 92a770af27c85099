"""Frozen records: what is written down about a run. Standard library only, no files.

For a reader: ``plan`` and ``declaration`` (what is to be done), ``tensor``, ``digest``,
``evidence``, ``rng`` and ``environment`` (what a run leaves behind), ``job`` and ``task`` (what a
process is to do), ``journal`` (a recording under way), ``manifest``, ``recording`` and
``registration`` (what is signed), ``estimate``, ``agreement`` and ``report`` (what is found).
"""
