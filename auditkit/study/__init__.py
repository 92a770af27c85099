"""A study: the plan taken over its seeds, to one signed manifest.

For a reader: ``runner`` (a whole study), ``planning`` (plans that are signed before),
``script_workers`` (jobs as processes of a user's own command); then ``worker`` and ``stages``, the
rooms whose code runs inside a worker process.
"""
