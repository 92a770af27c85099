"""What to replay of one seed, and what replaying it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from auditkit.evidence.reader import RunEvidence
from auditkit.formats.run_files import Outcome
from auditkit.records.environment import Environment
from auditkit.records.manifest import SeedRecord
from auditkit.records.report import Distance, Finding
from auditkit.replay.imports import ImportJudge
from auditkit.replay.opened import OpenedJudge


@dataclass
class SeedResult:
    """What replaying one seed found.

    Attributes:
        findings: What differs.
        outcomes: Recomputed probe tables by branch.
        environments: Environments that replays ran in.
        distances: How far the first replay is from the record.
        undecided: Whether what differs may be due to another environment, or nothing could be
            run.
        unexplained: Whether something differs that no other environment explains.
        lacking: Options without which it could not be replayed.
    """

    findings: list[Finding] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    environments: list[Environment] = field(default_factory=list)
    distances: list[Distance] = field(default_factory=list)
    undecided: bool = False
    unexplained: bool = False
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeedTask:
    """What to replay of one seed.

    Attributes:
        run: The recorded run.
        record: The seed.
        branches: Branches beside the control.
        arguments: Arguments of the factory that replace recorded ones.
        own_command: Whether the program is the verifier's own command.
        scratch: Folder for all seeds, with a copy of the code in it.
        judge: Judges what the replaying processes import.
        opened: Judges what they open while the program is built.
    """

    run: RunEvidence
    record: SeedRecord
    branches: tuple[str, ...]
    arguments: Mapping[str, str]
    own_command: bool
    scratch: Path
    judge: ImportJudge
    opened: OpenedJudge
