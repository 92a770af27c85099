"""Seeds of a pilot that the study which it led to has again, and whether it was of the same thing.

A number of seeds that was planned by a pilot's spread fits that pilot: with its seeds in the test
again, 6 to 9 % of true nulls are rejected at 5 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from auditkit.errors import UsageError
from auditkit.formats.quote import brief
from auditkit.records.manifest import ProgramRecord, StudyManifest
from auditkit.records.plan import StudyPlan
from auditkit.records.plan_values import spelled_seeds

#: What a report says where no seed is used twice.
NONE_AGAIN = "no seed of the pilot again"


@dataclass(frozen=True)
class PilotSeeds:
    """The seeds of a pilot.

    Attributes:
        statement_sha256: Which study it is: SHA-256 of what is signed in its manifest.
        initial: Digests of every component before step 1, by seed.
        program: What was run.
        plan: How.
    """

    statement_sha256: str
    initial: Mapping[int, Mapping[str, str]]
    program: ProgramRecord
    plan: StudyPlan

    @classmethod
    def of(cls, manifest: StudyManifest, statement_sha256: str) -> PilotSeeds:
        """Of a manifest."""
        initial = {record.seed: record.initial for record in manifest.seeds}
        return cls(statement_sha256, initial, manifest.program, manifest.plan)


def difference_note(pilot: PilotSeeds, study: StudyManifest) -> str | None:
    """What stands with the estimands of a study whose pilot is of something else; None if none."""
    there, here = _program(pilot.program), _program(study.program)
    differences = [*_differences(there, here)]
    what = "the pilot is of another program" if differences else "the pilot's plan is another one"
    differences += _differences(_plan(pilot.plan), _plan(study.plan))
    if not differences:
        return None
    return f"{what}: {'; '.join(differences)}: what it says of spread may not hold here"


def _program(program: ProgramRecord) -> dict[str, str]:
    return {"factory": program.target, **program.description}


def _plan(plan: StudyPlan) -> dict[str, str]:
    """What the spread of differences depends on."""
    return {
        "primary metric": plan.primary_metric,
        "perturbations": ", ".join(spec.typed for spec in plan.perturbations),
        "forks": ", ".join(map(str, plan.forks)),
        "window": str(plan.window),
        "horizon": str(plan.horizon),
        "placebos": str(plan.placebos),
        "placebo scale": str(plan.placebo_scale),
    }


def _differences(there: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    for name in {**there, **here}:
        if there.get(name) != here.get(name):
            then, now = (brief(values.get(name, "none")) for values in (there, here))
            yield f"{name} {then} in the pilot, {now} here"


def reuse_note(pilot: PilotSeeds, study: StudyManifest) -> str | None:
    """What stands with the estimands of a study that has seeds of its pilot again; None if none."""
    initial = {record.seed: record.initial for record in study.seeds}
    again = sorted(set(initial) & set(pilot.initial))
    parts = [_again(pilot, initial, again)] if again else []
    pairs = _renumbered(pilot, initial)
    if pairs:
        here, there = (spelled_seeds(seeds) for seeds in zip(*pairs, strict=True))
        are = f"seeds {here} are the pilot's {there} under other numbers"
        if len(pairs) == 1:
            are = f"seed {here} is the pilot's {there} under another number"
        parts.append(f"{are}: equal weights before step 1 ({len(pairs)} of {len(initial)})")
    if not parts:
        return None
    return (
        f"{'; '.join(parts)}; a test of seeds that its plan was made from rejects up to 9 % of "
        "true nulls at 5 %"
    )


def _again(
    pilot: PilotSeeds, initial: Mapping[int, Mapping[str, str]], again: Sequence[int]
) -> str:
    same = [seed for seed in again if initial[seed] == pilot.initial[seed]]
    began = (
        "at other weights before step 1" if not same else f"{len(same)} of them at equal weights"
    )
    if len(same) == len(again):
        began = "at equal weights before step 1"
    return (
        f"seeds of the pilot are used again: {spelled_seeds(again)} ({len(again)} of "
        f"{len(initial)}, {began})"
    )


def _renumbered(
    pilot: PilotSeeds, initial: Mapping[int, Mapping[str, str]]
) -> list[tuple[int, int]]:
    """Seeds that began with the weights of a seed of the pilot that has another number.

    Weights that two seeds of one study have, such as pretrained ones, are not made by a seed.
    """
    here, there = _weights(initial), _weights(pilot.initial)
    n_here, n_there = Counter(here.values()), Counter(there.values())
    known = {weights: seed for seed, weights in there.items() if n_there[weights] == 1}
    return [
        (seed, known[weights])
        for seed, weights in sorted(here.items())
        if known.get(weights, seed) != seed
        and (len(there) > 1 or (n_here[weights] == 1 and len(here) > 1))  # else nobody knows
    ]


def _weights(initial: Mapping[int, Mapping[str, str]]) -> dict[int, tuple[tuple[str, str], ...]]:
    """What is trained, before step 1, by seed."""
    found = {
        seed: tuple(
            sorted(
                (name, digest)
                for name, digest in components.items()
                if name.partition("/")[0] == "params"
            )
        )
        for seed, components in initial.items()
    }
    return {seed: weights for seed, weights in found.items() if weights}


def refuse_itself(pilot: PilotSeeds, statement_sha256: str | None) -> None:
    """A study is no pilot of its own.

    Raises:
        UsageError: When both are one.
    """
    if pilot.statement_sha256 == statement_sha256:
        raise UsageError("--pilot names the very study that is verified")
