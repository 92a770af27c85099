"""Worked examples; `python -m examples.results` runs those on real data."""
