"""``auditkit`` and ``python -m auditkit``: from the first moment on a signal ends in one line.

What takes time is imported only once that is seen to: until the command line is loaded there is
nothing to tidy, and nobody wants the traceback of an import.
"""

import os
import signal
import sys


def main() -> None:
    """Load the command line, and run it."""
    _end_at_signals()
    # Lazy for start-up time: a signal may come meanwhile.
    from auditkit.cli import main as command_line  # noqa: PLC0415
    from auditkit.cli.signals import raise_at_signals  # noqa: PLC0415

    raise_at_signals()
    try:
        command_line()
    except SystemExit as end:
        _leave_at_once(end.code)
        raise
    finally:
        _end_at_signals()  # all that is left is Python's own end


def _leave_at_once(code: object) -> None:
    """End here where a library would crash while the interpreter does, and change the exit code."""
    lost = sys.modules.get("auditkit.engines.lost")
    if lost is not None and lost.ABANDONED and isinstance(code, int):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_at_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _frame: object) -> None:
    how = "interrupted" if number == signal.SIGINT else "terminated"
    try:
        os.write(2, f"auditkit: {how}\n".encode())
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    main()
