"""Wraps live torch objects and yields records. Nothing here changes what training computes.

Five rooms, lowest first: ``values`` (tensors and Python values as bytes and digests), ``rng``
(random streams), ``loader`` (the DataLoader's order), ``machine`` (software, hardware, settings,
processes), ``state`` (the complete training state).
"""
