"""Live torch objects to records, and back into live objects.

To look changes nothing of what training computes; what does set something (settings of a study,
seeds, a restored state, a given order) is said in its module. Five rooms, lowest first:
``values`` (tensors and Python values as bytes and digests), ``rng`` (random streams), ``loader``
(the DataLoader's order), ``machine`` (software, hardware, settings, processes), ``state`` (the
complete training state).
"""
