"""Records to bytes and back. No torch, and no file is opened here.

For a reader: ``quote`` and ``redaction`` (what may stand in a text), ``structure`` and
``canonical`` (records, JSON values, bytes), ``schema``, ``statements`` (what is signed),
``seeds``, ``ordering`` (data order as numbers), ``tensor_file`` (safetensors), ``recipes`` (what
a digest runs over), ``snapshot_file`` (fork and checkpoint), ``run_files`` (traces, orders and
outcome tables).
"""
