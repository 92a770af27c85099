"""A study: the plan taken over its seeds, to one signed manifest.

For a reader: ``runner`` (a whole study, seed by seed), ``planning`` (plans that are signed
before), ``script_workers`` (jobs as processes of a user's own command); then the rooms ``worker``
(a job inside a worker process) and ``stages`` (its steps; the Recorder uses some of them in the
user's own process).
"""
