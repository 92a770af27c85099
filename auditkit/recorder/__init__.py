"""The Recorder: evidence, checkpoints and exact resuming for a loop its user already has.

For a reader: ``recorder`` (what a user calls), ``wrapping`` (what was handed over), ``registered``
(the live objects under watch), ``loop`` (a row at each batch boundary), ``recording`` and
``lifecycle`` (to the signed manifest); then what a script does that auditkit itself started:
``tasks``, ``stopping``, ``row_client`` (replay), ``script_jobs`` (branches).
"""
