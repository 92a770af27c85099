"""What was found, in lines for people: of a doctor's examination, and of a replay."""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.diagnose.doctor import Diagnosis
from auditkit.diagnose.resuming import ResumeTrial
from auditkit.evidence.comparison import seeding_calls
from auditkit.evidence.distances import Magnitude
from auditkit.records.recording import RecordingManifest
from auditkit.replay.recording_replay import RecordingReplay


def diagnosis_lines(found: Diagnosis) -> Iterator[str]:
    """What the doctor found."""
    parting = found.parting
    if parting is None:
        yield (
            f"Repeatable: {found.steps} steps are equal bit for bit; no nondeterminism seen in "
            f"{found.runs} runs."
        )
        if found.idle:
            yield (
                f"  {', '.join(found.idle)} {'begin' if len(found.idle) > 1 else 'begins'} "
                f"elsewhere in every run ({seeding_calls(found.idle)} would change that); nothing "
                "drew from there"
            )
        if found.resume is not None:
            yield from _resume_lines(found.resume, found.advice)
        return
    yield f"Not repeatable: {parting}."
    if found.module is not None:
        yield f"  first that differs in two runs of that step: {found.module}"
    for experiment in found.experiments:
        yield f"  tried {experiment.change}: {experiment.outcome}"
    for advice in found.advice:
        yield f"What to do: {advice}."


def _resume_lines(trial: ResumeTrial, advice: tuple[str, ...]) -> Iterator[str]:
    at, parting = f"after step {trial.step}", trial.parting
    if trial.refused is not None:
        yield f"A loop cannot be resumed from a checkpoint {at}: {trial.refused}"
    elif parting is None:
        yield f"A resume is exact: from a checkpoint {at}, {trial.rows} rows were given again."
    else:
        yield f"A resume is not exact: from a checkpoint {at}, {parting}."
        for text in advice:
            yield f"What to register: likely {text}."


def replay_lines(found: RecordingReplay, manifest: RecordingManifest) -> Iterator[str]:
    """What a replay found.

    Args:
        found: What it found.
        manifest: The recording's.
    """
    most = max(rank.steps for rank in manifest.ranks)
    processes = f"{found.ranks} process{'' if found.ranks == 1 else 'es'}"
    if found.equal and found.last_step < most:
        yield (
            f"Equal: the first {found.last_step} of {most} steps of {processes}, every row, and "
            "the state after them; the others were not run."
        )
    elif found.equal:
        yield f"Equal: {most} steps of {processes}, every row, order and commitment."
    else:
        yield f"Different: steps 1..{found.last_step} of {processes} were compared."
    steps = [c.step for rank in manifest.ranks for c in rank.checkpoints]
    passed = sum(step <= found.last_step for step in steps)
    if found.equal and passed > found.checkpoints:
        yield f"  not compared: {passed - found.checkpoints} of {passed} checkpoints"
    yield from (f"  {finding}" for finding in found.findings)
    yield from (f"  environment: {line}" for line in found.environment_differences)
    if found.distance is not None:
        yield f"  after step {found.distance.step}, replay and record are apart by:"
        yield from (f"    {apart.component}: {_size(apart)}" for apart in found.distance.components)


def _size(apart: Magnitude) -> str:
    parts = []
    if apart.absolute is not None:
        parts.append(f"largest {apart.absolute:.3g} in {apart.absolute_tensor}")
    if apart.relative is not None:
        parts.append(f"relative {apart.relative:.3g} in {apart.relative_tensor}")
    if apart.elements:
        parts.append(f"{apart.elements} elements")
    if apart.unmeasured:
        names = ", ".join(entry or "all of it" for entry in apart.unmeasured)
        parts.append(f"no numbers: {names}")
    return ", ".join(parts)
