"""Seeds of a pilot that the study which it led to has again.

A number of seeds that was planned by a pilot's spread fits that pilot: with its seeds in the test
again, 6 to 9 % of true nulls are rejected at 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from auditkit.errors import UsageError
from auditkit.records.manifest import StudyManifest
from auditkit.records.plan_values import spelled_seeds

#: What a report says where no seed is used twice.
NONE_AGAIN = "no seed of the pilot again"


@dataclass(frozen=True)
class PilotSeeds:
    """The seeds of a pilot.

    Attributes:
        statement_sha256: Which study it is: SHA-256 of what is signed in its manifest.
        initial: Digests of every component before step 1, by seed.
    """

    statement_sha256: str
    initial: Mapping[int, Mapping[str, str]]

    @classmethod
    def of(cls, manifest: StudyManifest, statement_sha256: str) -> PilotSeeds:
        """Of a manifest."""
        return cls(statement_sha256, {record.seed: record.initial for record in manifest.seeds})


def reuse_note(pilot: PilotSeeds, study: StudyManifest) -> str | None:
    """What stands with the estimands of a study that has seeds of its pilot again; None if none."""
    initial = {record.seed: record.initial for record in study.seeds}
    again = sorted(set(initial) & set(pilot.initial))
    if not again:
        return None
    same = [seed for seed in again if initial[seed] == pilot.initial[seed]]
    began = (
        "at other weights before step 1" if not same else f"{len(same)} of them at equal weights"
    )
    if len(same) == len(again):
        began = "at equal weights before step 1"
    return (
        f"seeds of the pilot are used again: {spelled_seeds(again)} ({len(again)} of "
        f"{len(initial)}, {began}); a test of seeds that its plan was made from rejects up to 9 % "
        "of true nulls at 5 %"
    )


def refuse_itself(pilot: PilotSeeds, statement_sha256: str | None) -> None:
    """A study is no pilot of its own.

    Raises:
        UsageError: When both are one.
    """
    if pilot.statement_sha256 == statement_sha256:
        raise UsageError("--pilot names the very study that is verified")
