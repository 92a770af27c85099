"""Worker processes, the processes of a user's command, and the messages to and from both.

For a reader: ``subprocesses`` (environment, output, exit), ``workers`` (one process a job),
``protocol`` (messages), ``server`` (accepts connections), ``commands`` (a user's own command),
``row_server`` (rows that a command's loop streams).
"""
