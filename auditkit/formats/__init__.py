"""Records to bytes and back. No torch, and no file of a user is opened here.

For a reader: ``quote`` and ``redaction`` (what may stand in a text), ``structure`` and
``canonical`` (records, JSON values, bytes), ``schema``, ``statements`` (what is signed),
``seeds``, ``ordering`` (data order as numbers, and the permutations that order perturbations
deliver), ``tensor_file`` (safetensors), ``recipes`` (what a digest runs over), ``snapshot_file``
(fork and checkpoint as they are read; :mod:`auditkit.observe.values.codec` fills them),
``run_files`` (traces, orders and outcome tables).
"""
