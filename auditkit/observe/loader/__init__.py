"""A DataLoader's order, seen where it is drawn and where it is consumed.

For a reader: ``samplers`` (what is drawn), then the two ways to look on: ``interception`` and
``driver`` where auditkit runs the loop; ``proxies``, ``position``, ``iteration`` and
``recorded_loader`` where the user's own loop runs; ``refusals`` (what cannot be recorded).
"""
