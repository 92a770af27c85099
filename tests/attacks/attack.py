"""An attack, and how it is made: a copy of an honest run is forged, then verified.

What it must get is part of the attack: the number of the check, the exit code, and what the
message says. A *control* is what looks like an attack and is none: it must be accepted. Every
attack runs under a time limit, and everything but a report or an error of the tree is a crash.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from studies import Run, check, check_files

from auditkit.errors import AuditError
from auditkit.evidence.verdicts import as_finding
from auditkit.formats import canonical, structure
from auditkit.records.report import Finding
from auditkit.signing.keys import PrivateKey

#: Seconds after which a verification counts as one that never ends.
LIMIT = 60

#: What became of an attack. A control is *caught* where it was accepted, as it must be.
Fate = Literal["caught", "missed", "misjudged", "traceback", "hang"]


@dataclass(frozen=True)
class Attack:
    """One attack, and what the verifier must say of it.

    Attributes:
        name: What is done, for people.
        group: What it belongs to.
        apply: Forges a run in place; it may return another run instead.
        check: Number of the check that must fail; 0 for a control, where none may.
        exit_code: The verification's exit code. Where it is 0 and the attack no control, what was
            forged must not count: the check is not made, and a warning says why.
        says: A part of the message.
        where: The file, seed or branch that must be named; None for whatever it is.
        step: The step that must be named.
        component: The component that must be named.
        needs_replay: Whether it is caught by re-execution alone.
        subject: The honest run that is forged, of :mod:`attacks.subjects`.
        options: Of the verification.
        during: Goes on while the run is being verified.
    """

    name: str
    group: str
    apply: Callable[[Run], object]
    check: int
    exit_code: int
    says: str = ""
    where: str | None = None
    step: int | None = None
    component: str | None = None
    needs_replay: bool = False
    subject: str = "study"
    options: Mapping[str, Any] = field(default_factory=dict)
    during: Callable[[Run], contextlib.AbstractContextManager[object]] = contextlib.nullcontext

    @property
    def is_control(self) -> bool:
        """Whether it must be accepted."""
        return self.check == 0

    def fits(self, finding: Finding) -> bool:
        """Whether a finding says what it must."""
        asked = (
            (self.where, finding.where),
            (self.step, finding.step),
            (self.component, finding.component),
        )
        return self.says in finding.message and all(a is None or a == b for a, b in asked)


@dataclass(frozen=True)
class Outcome:
    """What became of an attack, and what there is to say if it was not caught."""

    fate: Fate
    text: str = ""


class Hang(Exception):
    """The verification did not end."""


def strike(attack: Attack, honest: Run, folder: Path, *, replays: int | None = None) -> Outcome:
    """Make an attack.

    Args:
        attack: The attack.
        honest: What it is made on; it is copied.
        folder: An empty folder.
        replays: As of :func:`studies.check`.
    """
    target = folder / "run"
    shutil.copytree(honest.folder, target)
    with limited(LIMIT):
        forged = attack.apply(replace(honest, folder=target))
    run = forged if isinstance(forged, Run) else replace(honest, folder=target)
    verify = functools.partial(check, replays=replays) if attack.needs_replay else check_files
    try:
        with limited(LIMIT), attack.during(run):
            report = verify(run, **attack.options)
            canonical.dumps(structure.to_dict(report))  # every report can be written down
    except Hang:
        return Outcome("hang", f"no answer within {LIMIT} s")
    except AuditError as error:  # what is not even read has no report
        return _judged(attack, error.exit_code, [(1, as_finding(error))])
    except Exception:
        return Outcome("traceback", traceback.format_exc())
    if report.estimates is not None and not attack.is_control:
        return Outcome("misjudged", "estimands were shown")
    found = [(result.number, finding) for result in report.checks for finding in result.findings]
    warned = [
        (result.number, Finding(text))
        for result in report.checks
        if result.status == "not run"
        for text in result.warnings
    ]
    return _judged(attack, report.exit_code, found or warned)


def _judged(attack: Attack, exit_code: int, found: list[tuple[int, Finding]]) -> Outcome:
    text = f"exit code {exit_code}\n" + "\n".join(f"check {n}: {finding}" for n, finding in found)
    if attack.is_control:
        return Outcome("misjudged" if exit_code or found else "caught", text)
    if exit_code == 0 and not found:
        return Outcome("missed", text)
    if not all(str(finding).isprintable() for _, finding in found):
        return Outcome("misjudged", f"a message that is no printable line: {text!a}")
    fits = any(n == attack.check and attack.fits(finding) for n, finding in found)
    return Outcome("caught" if fits and exit_code == attack.exit_code else "misjudged", text)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`Hang` in the main thread where the block takes longer."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Range:
    """Honest runs to be attacked, each made when it is first asked for.

    Args:
        folder: Where they are made.
        key: What they are signed with.
        builders: How, by name.
    """

    def __init__(
        self,
        folder: Path,
        key: PrivateKey,
        builders: Mapping[str, Callable[[Path, PrivateKey], Run]],
    ) -> None:
        self._folder, self._key, self._builders = folder, key, builders
        self._made: dict[str, Run] = {}

    def __getitem__(self, name: str) -> Run:
        """The honest run of that name."""
        if name not in self._made:
            self._made[name] = self._builders[name](self._folder / name, self._key)
        return self._made[name]
