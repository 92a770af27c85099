"""Worker processes, the processes of a user's command, and the messages to and from both.

This is the side of the process that starts them. For a reader: ``subprocesses`` (environment,
output, exit), ``worker_pool`` (one fresh process a job), ``protocol`` (messages), ``server``
(accepts connections), ``commands`` (a user's own command), ``row_server`` (rows that a command's
loop streams).
"""
