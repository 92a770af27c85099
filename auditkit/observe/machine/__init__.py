"""The process that training runs in: code, software, hardware, settings, its peers.

For a reader: ``determinism`` (settings that change bits), ``environment``, ``imports`` and
``code`` (the user's program), ``repository``, ``process_group`` and ``peers``
(``torch.distributed``).
"""
