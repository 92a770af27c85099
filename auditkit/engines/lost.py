"""What is said where an engine, or a worker of one, is gone."""

from __future__ import annotations

from auditkit.errors import AuditError, ConnectionLost, ProgramFailed
from auditkit.formats import canonical
from auditkit.formats.quote import clipped
from auditkit.processes.told_errors import rebuild_error

#: Engines that could not be let go of, and whose threads do not outlive the interpreter's end.
ABANDONED: list[str] = []

_KEPT = "what was complete is kept: go on with --resume"


def unreachable(
    name: str, address: str | None, error: BaseException, hint: str = ""
) -> ConnectionLost:
    """Nobody answers at an address, or workers could not be started.

    Args:
        name: Of the engine.
        address: As it was given.
        error: What its package raised.
        hint: What else may be the matter at an address.
    """
    reason = clipped(f"{type(error).__name__}: {error}".rstrip(": "))
    if address is None:
        return ConnectionLost(f"{name} could not be started here ({reason})")
    return ConnectionLost(
        f"no scheduler of {name} answers ({reason})",
        where=address,
        hint=f"is it running, and reached from here under this address?{hint}",
    )


def gone(name: str, address: str | None, error: BaseException | None = None) -> ConnectionLost:
    """A scheduler, or every worker that a job was given to, is gone."""
    if error is None:
        what = f"the scheduler of {name} is gone"
    else:
        what = f"{name} lost a job ({clipped(f'{type(error).__name__}: {error}')})"
    return ConnectionLost(what, where=address, hint=_KEPT)


def died(told: str) -> AuditError:
    """A job whose process was killed, as often as it was tried."""
    described = canonical.loads(told.encode(), what="answer of a worker")
    if not isinstance(described, dict):
        return ProgramFailed("a job was killed")
    error = rebuild_error(described)
    error.hint = f"it was tried on several workers; {_KEPT}"
    return error
