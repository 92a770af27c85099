"""How hard a program says that its samples are: what a curriculum inside the window is made by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from auditkit.errors import NothingToPerturb, ProgramError
from auditkit.formats.ordering import CURRICULUM, LARGEST, Batch
from auditkit.formats.quote import class_of
from auditkit.observe.rng.streams import capture_streams
from auditkit.program.program import program_failure
from auditkit.program.session import Session
from auditkit.program.untouched import fingerprint, require_untouched
from auditkit.records.plan import PerturbationSpec

_HINT = "Program(difficulty=...): a function of a sample's index, or numbers by index"

_RULE = "a difficulty follows from the index alone: it must not train, draw or write"


def difficulties(session: Session, batches: Sequence[Batch]) -> list[float] | None:
    """The difficulty of every sample of some batches; None where the program gives none.

    Args:
        session: The live program; its random streams stay where they are.
        batches: int64 ``(B, 2)`` of (epoch, index).

    Raises:
        ProgramError: When one is no finite number, or another when it is asked for again.
        ProgramFailed: When the program's function raises.
        ProbeDisturbance: When asking changed the training state, its hooks or its methods.
    """
    given: Any = session.program.difficulty
    if given is None:
        return None
    ask: Any = given if callable(given) else getattr(given, "__getitem__", None)
    if ask is None:
        raise ProgramError(
            "Program.difficulty has the wrong type", found=class_of(given), hint=_HINT
        )
    before, streams = fingerprint(session), capture_streams()
    try:
        found = _numbers(ask, [int(index) for batch in batches for _, index in batch])
    finally:
        streams.restore()
    require_untouched(before, fingerprint(session), "Program.difficulty", _RULE)
    return found


def require_difficulty(
    session: Session, spec: PerturbationSpec, batches: Sequence[Batch]
) -> list[float] | None:
    """The same where an order is made by difficulty; None where it is not.

    Raises:
        NothingToPerturb: When the program says nothing of its samples' difficulty.
        ProgramError: As :func:`difficulties`.
    """
    if spec.name != CURRICULUM:
        return None
    found = difficulties(session, batches)
    if found is None:
        raise NothingToPerturb("the program does not say how hard its samples are", hint=_HINT)
    return found


def _numbers(ask: Callable[[int], Any], indices: Sequence[int]) -> list[float]:
    """One number an index; the first index is asked for once more at the end."""
    known: dict[int, float] = {}
    for index in indices:
        if index not in known:
            known[index] = _number(ask, index)
    for index in indices[:1]:
        again = _number(ask, index)
        if again != known[index]:
            raise ProgramError(
                f"Program.difficulty of sample {index} is {known[index]}, and {again} when it is "
                "asked for again",
                expected="one number an index",
                hint=_RULE,
            )
    return [known[index] for index in indices]


def _number(ask: Callable[[int], Any], index: int) -> float:
    try:
        found = float(ask(index))
    except Exception as error:  # whatever the program's function raises
        raise program_failure(error, f"Program.difficulty of sample {index}", _HINT) from error
    if not abs(found) <= LARGEST:  # true for NaN, too
        raise ProgramError(
            f"Program.difficulty of sample {index} is {found}",
            expected=f"a number of at most {LARGEST:g} in size",
        )
    return found
