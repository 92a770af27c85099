"""What the command line does, for programs: ``auditkit.verify`` and its like.

For a reader: ``calls`` (the functions), ``report`` (what they give), ``verifying`` and
``with_replay`` (what the command line verifies with, too).
"""
