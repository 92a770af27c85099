"""What a worker process does with a job: the stages in turn, and the files they leave.

For a reader: ``jobs``, ``callbacks`` (snapshot, probe and commitments while a branch is held),
``job_files`` (what a job reads and hands back).
"""
