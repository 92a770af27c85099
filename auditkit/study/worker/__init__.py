"""What a worker process does with a job: the stages in turn, and the files they leave.

For a reader: ``jobs``, ``callbacks`` (what looks on while a branch is held), ``job_files`` and
``job_results``.
"""
