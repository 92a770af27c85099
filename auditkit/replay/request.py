"""What is asked of a replay of a study, and what it found.

Verifying without a replay loads this, and nothing of what starts processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from auditkit.engines.spec import EngineSpec
from auditkit.errors import UsageError
from auditkit.evidence.reader import RunEvidence
from auditkit.formats.run_files import Outcome
from auditkit.records.environment import Environment
from auditkit.records.report import Distance, Finding
from auditkit.replay.opened import OpenedHere


@dataclass(frozen=True)
class ReplayRequest:
    """What to replay, and how.

    Attributes:
        choice: Branches (the control excluded) to replay, by seed; seeds that are absent are
            not replayed at all.
        arguments: Arguments of the factory that replace recorded ones.
        jobs: Processes at work at a time: of seeds, and where fewer are left, of branches.
        command: The user's own command, for a study of a script; given by the verifier, never
            taken from a record.
        tolerance: Largest mean total variation between a recorded probe table and its
            recomputed one that still counts as close in another environment; None where
            nothing but equal bits will do.
        variables: Environment variables that replaying processes have beside those that any has;
            a command of the user's own has his whole environment anyway.
        engine: Has it done on other machines (:mod:`auditkit.engines`); None for here.

    Raises:
        UsageError: When the tolerance is no number from 0 to 1.
    """

    choice: Mapping[int, tuple[str, ...]]
    arguments: Mapping[str, str]
    jobs: int = 1
    command: tuple[str, ...] = ()
    tolerance: float | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    engine: EngineSpec | None = None

    def __post_init__(self) -> None:
        if self.tolerance is not None and not 0 <= self.tolerance <= 1:  # false for NaN, too
            raise UsageError(f"a tolerance is a total variation, 0 to 1, not {self.tolerance}")


@dataclass(frozen=True)
class ReplayOutcome:
    """What replaying found.

    Attributes:
        findings: What differs; empty where every replay equals the record.
        outcomes: Recomputed probe tables by seed and branch.
        environments: Environments that replays ran in.
        undecided: Whether what differs may be due to another environment, or nothing could be
            run.
        distances: How far snapshots and probe tables are from the recorded ones; equal ones
            are left out.
        close: Whether bits differ and that is all: the environment differs, every replayed
            order, batch, random stream and description is the recorded one, and no probe table
            of any replayed branch is further away than the requested tolerance. It is less than
            *verified*: an edit that small looks the same.
        warnings: What of this installation was not compared with a RECORD.
        opened: What the program opened while it was built.
        lacking: Options without which something could not be replayed; the program has a say in
            what is among them.
    """

    findings: tuple[Finding, ...]
    outcomes: Mapping[tuple[int, str], Outcome]
    environments: tuple[Environment, ...]
    undecided: bool = False
    distances: tuple[Distance, ...] = ()
    close: bool = False
    warnings: tuple[str, ...] = ()
    opened: OpenedHere = field(default_factory=OpenedHere)
    lacking: tuple[str, ...] = ()


#: Re-executes branches of a study.
Replayer = Callable[[RunEvidence, ReplayRequest], ReplayOutcome]
