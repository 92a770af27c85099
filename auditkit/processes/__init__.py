"""Worker processes, the processes of a user's command, and the line to both.

For a reader: ``subprocesses`` (environment, last words, end), ``workers`` (one process a job),
``protocol`` (messages), ``server`` (who answers), ``commands`` (a user's own command),
``row_server`` (rows that a command's loop streams).
"""
