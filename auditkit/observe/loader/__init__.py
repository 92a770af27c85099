"""A DataLoader's order, seen where it is drawn and where it is consumed.

For a reader: ``indices`` and ``samplers`` (what is drawn), ``class_swap``, then the two ways to
look on: ``interception`` and ``driver`` where auditkit runs the loop; ``position``,
``iteration``, ``dispatch``, ``resume`` and ``boundary`` where the user's own loop runs.
"""
