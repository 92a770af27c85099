"""The process that training runs in: code, software, hardware, settings, its peers.

For a reader: ``determinism`` (settings that change bits), ``environment``, ``code`` (the user's
program), ``distributed`` (the other processes).
"""
