"""SIGTERM ends a command as Ctrl-C does: by an exception, so that everything is tidied."""

from __future__ import annotations

import signal


class Terminated(KeyboardInterrupt):
    """SIGTERM came: of a batch system, a container or ``kill``."""


def raise_at_signals() -> None:
    """Let Ctrl-C and SIGTERM raise, except where whoever started us has them ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, _raise_once)


def how_it_ended(error: BaseException) -> tuple[str, int]:
    """What an interrupt is called, and what a shell reports of it."""
    cause = error if isinstance(error, KeyboardInterrupt) else error.__context__
    if isinstance(cause, Terminated):
        return "terminated", 128 + signal.SIGTERM
    return "interrupted", 128 + signal.SIGINT


def _raise_once(_number: int, _frame: object) -> None:
    # ``timeout`` sends it twice, to the process and to its group: once is enough, and the second
    # would end the tidying.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
