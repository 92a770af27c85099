"""What a worker process does with a job: the stages in turn, and the files they leave.

The process begins in :mod:`auditkit.cli.worker`; who starts it is
:mod:`auditkit.processes.worker_pool`. For a reader: ``jobs``, ``callbacks`` (snapshot, probe and
commitments while a branch is held), ``job_files`` (what a job reads and hands back).
"""
