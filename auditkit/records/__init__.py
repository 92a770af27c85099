"""Frozen records: what is written down about a run. Standard library only, no files."""
