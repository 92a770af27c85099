"""Tensors and Python values as named leaves, bytes and digests.

For a reader: ``tensors``, ``arrays``, ``flatten`` and ``unflatten`` (the encoding ``json-v1``),
``codec`` (live values to the content of a snapshot and back), ``digests``.
"""
