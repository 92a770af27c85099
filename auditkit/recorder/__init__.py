"""The Recorder: evidence, checkpoints and exact resuming for a loop its user already has.

For a reader: ``recorder`` (what a user calls), ``wrapping`` (what was handed over), ``loop`` (a row
at each batch boundary, further loaders included, and the base of all backends), ``writer`` and
``recording`` (from the rows to the signed manifest), ``proof`` (of a resume); then the backends of
a script that auditkit itself started: ``tasks``, ``row_client`` (replay), ``script_jobs``
(branches).
"""
