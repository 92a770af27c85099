"""The complete training state as named components, and what no snapshot would hold.

For a reader: ``modules`` and ``optimizers`` (their state), ``components`` (all of it, both
ways), ``reach`` and ``uncaptured`` (what would be missed).
"""
