"""The survey's items of the checklist: facts and digests for each, from manifest and report.

A function here says what is recorded and which digests stand behind it. Whether the answer may be
yes is decided by the checks (:func:`auditkit.paper.citations.answer_from_checks`); an item can
only be stricter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from auditkit.paper.citations import (
    MAX_LISTED,
    back_flow_lines,
    changed_at_fork,
    cited_forks,
    cited_seeds,
    clipped,
    count,
    digest,
    digest_at,
    file_digest,
    floor_lines,
    floor_summary,
    has_tests,
    listed,
    more_seeds,
    order_lines,
    outcome_lines,
    pairs,
    primary_lines,
    spec_text,
    uncertainty,
)
from auditkit.paper.questions import Answer
from auditkit.records.fork_points import plans
from auditkit.records.manifest import TIMES, StudyManifest
from auditkit.records.report import VerificationReport

#: Components that hold what a model keeps beside its parameters.
_BUFFERS: tuple[str, ...] = ("batchnorm", "buffers")


#: Settings that are named; the manifest has all.
_SETTINGS = (
    *("deterministic algorithms", "fill uninitialized memory", "cudnn deterministic"),
    *("cudnn benchmark", "cudnn allow tf32", "float32 matmul precision", "torch threads"),
)


@dataclass(frozen=True)
class Facts:
    """What can be said about an item whose checks passed.

    Attributes:
        text: The justification.
        evidence: Check numbers and digests.
        answer: ``yes``, unless the facts themselves forbid it.
    """

    text: str
    evidence: tuple[str, ...]
    answer: Answer = "yes"


def order(manifest: StudyManifest, _: VerificationReport) -> Facts:
    """Order hashes."""
    plan = manifest.plan
    indexed = all(seed.data.samples is not None for seed in manifest.seeds)
    windows = ", ".join(f"{each.fork_at + 1} to {each.window_end}" for each in plans(plan))
    hashed = "the (epoch, index) pairs" if indexed else "the content of the batches"
    same = (
        "every branch consumed the control's samples in the control's order or in its declared "
        f"permutation inside steps {windows}."
    )
    if any(seed.data.data_from != "loader" for seed in manifest.seeds):
        same = (
            "replica and carry consumed what the control did; the data of other branches are of "
            "their own course, unless they were yoked to the control's (total and direct effects)."
        )
    text = (
        f"SHA-256 over {hashed} of steps 1 to {plan.horizon}, for each of "
        f"{count(len(manifest.seeds), 'seed')}; {same}"
    )
    return Facts(text, (*order_lines(manifest), *more_seeds(manifest, 6)))


def state(manifest: StudyManifest, report: VerificationReport) -> Facts:
    """Buffer and BatchNorm checksums."""
    first = manifest.seeds[0]
    control = first.branches[0]
    present = sorted(control.digests.get("t0", {}))
    buffers = [name for name in present if name.partition("/")[0] in _BUFFERS]
    missing = [name for name in _BUFFERS if not any(b.partition("/")[0] == name for b in buffers)]
    between = manifest.plan.probe_at
    more = f"t0+W, T and {count(len(between), 'further time')}"
    times = more if between else "t0+W and T"
    later = (
        f"those at {times} are what re-execution gave (check 8)"
        if report.verdict == "verified"
        else f"those at {times} are as recorded, not all re-executed"
    )
    text = (
        f"sha256/tensor-v1 of {count(len(present), 'component')} ({listed(present, 24)}) for every "
        f"branch at t0, {times}. The control's at t0 were computed again from the snapshot; "
        f"{later}."
    )
    if missing:
        text += f" The training state has no component {' and no '.join(missing)}."
    names = buffers or [name for name in present if name.partition("/")[0] == "params"]
    shown_by = (
        "check 7 for t0, check 8 for t0+W and T"
        if report.verdict == "verified"
        else "check 7 for t0, t0+W and T as signed"
    )
    evidence = [
        f"{shown_by}; seed {seed.seed}, control, {name}: "
        + ", ".join(
            f"{time.replace('t0', t0)} {digest(digest_at(seed.branches[0], time, name))}"
            for time in TIMES
        )
        for t0, seed in cited_forks(manifest)
        for name in names
    ]
    return Facts(text, (*evidence, *more_seeds(manifest, 7)))


def rng(manifest: StudyManifest, _: VerificationReport) -> Facts:
    """RNG contracts."""
    contract = manifest.seeds[0].rng
    seeded = [stream.stream for stream in contract.streams if stream.seed is not None]
    others = [stream.stream for stream in contract.streams if stream.seed is None]
    text = (
        f"Seeds are derived by {clipped(contract.recipe)} from the study seed for "
        f"{listed(seeded, 24) or 'no stream'}; "
        f"derived per use or held by the program: {listed(others, 24) or 'none'}. Augmentation: "
        f"{manifest.plan.augmentation_rng}. Not covered: {listed(contract.uncovered) or 'nothing'}."
    )
    evidence = [
        f"check 5; seed {seed.seed}, {clipped(stream.stream)}: seed {stream.seed}, start "
        f"{digest(stream.start)}, t0 {digest(stream.fork)}, T {digest(stream.end)}"
        for seed in manifest.seeds[:1]
        for stream in seed.rng.streams[:MAX_LISTED]
        if stream.fork is not None
    ]
    rest = len(manifest.seeds) - 1
    more = [f"check 5; {count(rest, 'more seed')}: see the manifest"] if rest else []
    return Facts(text, (*evidence, *more))


def paired(manifest: StudyManifest, _: VerificationReport) -> Facts:
    """Paired seeds."""
    plan = manifest.plan
    forks = f"one fork each after step {plan.fork_at}"
    if plan.further_forks:
        forks = f"{len(plan.forks)} forks each, after steps {listed(plan.forks, 24)}"
    text = (
        f"{count(len(plan.seeds), 'seed')} ({listed(plan.seeds, 24)}), {forks}; the control and "
        f"{count(len(plan.treatment_names), 'treatment')} of a seed start from the same state, "
        "random streams and order, but for what the perturbation declares. "
        "No two seeds start from the same random streams. The unit is the seed."
    )
    lines = [
        f"checks 3 and 7; seed {seed.seed}: fork file {file_digest(manifest, seed.fork)}, params "
        f"at {t0} {digest(digest_at(seed.branches[0], 't0', 'params'))}"
        for t0, seed in cited_forks(manifest)
    ]
    return Facts(text, (*lines, *more_seeds(manifest, 7)))


def kernels(manifest: StudyManifest, report: VerificationReport) -> Facts:
    """Deterministic kernels."""
    settings = manifest.environment.determinism
    text = (
        f"Re-executed in fresh processes: {clipped(report.replay)}; equal bit for bit at every "
        f"step, in digests and outcomes. Recorded settings: {pairs(settings, _SETTINGS)}; "
        f"{count(len(settings), 'setting')} in the manifest."
    )
    if report.environment_differences:
        text += (
            " The environment of the re-execution differs in: "
            f"{listed(report.environment_differences)}."
        )
    is_set = settings.get("deterministic algorithms") == "True"
    if not is_set:
        text += " The record does not say that deterministic algorithms were switched on."
    if report.verdict == "verified":
        lines = [
            f"check 8; seed {seed.seed}, control, params at T: "
            f"{digest(digest_at(seed.branches[0], 'T', 'params'))}"
            for seed in cited_seeds(manifest)
        ]
        evidence = (*lines, *more_seeds(manifest, 8))
    else:  # which branches were drawn stands in no report
        evidence = (f"check 8; {clipped(report.replay)}",)
    return Facts(text, evidence, "yes" if is_set else "no")


def perturbations(manifest: StudyManifest, report: VerificationReport) -> Facts:
    """Perturbation versions."""
    treatments = [b for b in manifest.seeds[0].branches if b.role == "treatment"]
    names = [f"{spec_text(branch)}, version {branch.version}" for branch in treatments]
    how = (
        "each change was made again from the snapshot and gave the same state (check 8)"
        if report.verdict == "verified"
        else "that each change was made in the declared way was not shown for every branch: that "
        "needs check 8 over all branches"
    )
    text = (
        f"{'; '.join(names[:24])}. At t0 each branch differs from its control in exactly the "
        f"components that the verifier's own table declares for that version; {how}."
    )
    control = manifest.seeds[0].branches[0]
    evidence = [
        f"check 7; seed {manifest.seeds[0].seed}, {spec_text(branch)}: "
        f"{changed_at_fork(branch, control)}"
        for branch in treatments[:24]
    ]
    return Facts(text, tuple(evidence))


def floor(manifest: StudyManifest, report: VerificationReport) -> Facts:
    """Noise floor."""
    plan, estimates = manifest.plan, report.estimates
    if estimates is None:
        return Facts("The report holds no estimates.", (), "todo")
    text = (
        f"The replica, restored from the snapshot in another process, equals the control. "
        f"{count(plan.placebos, 'placebo')} a seed, whose only change at t0 moves each trainable "
        f"weight by at most {count(int(plan.placebo_scale), 'unit')} in the last place. "
        f"{floor_summary(estimates)}"
    )
    replicas = [
        f"check 9; seed {seed.seed}, replica, params at T: "
        f"{digest(digest_at(branch, 'T', 'params'))}"
        for seed in cited_seeds(manifest)
        for branch in seed.branches
        if branch.role == "replica"
    ]
    lines = tuple(f"check 10; {line}" for line in floor_lines(estimates))
    evidence = (
        *replicas,
        *more_seeds(manifest, 9),
        *outcome_lines(manifest, report, "placebo"),
        *lines,
    )
    stands = estimates.floor.developed is not None
    return Facts(text, evidence, "yes" if stands else "no")


def uncertain(manifest: StudyManifest, report: VerificationReport) -> Facts:
    """Uncertainty."""
    if report.estimates is None:
        return Facts("The report holds no estimates.", (), "todo")
    said = (*primary_lines(report.estimates), *back_flow_lines(report.estimates))
    lines = tuple(f"check 10; {line}" for line in said)
    text = uncertainty(report.estimates)
    if report.verdict == "sampled":
        text += f" Not every table was computed again: {clipped(report.replay)}."
    tested = has_tests(report.estimates)
    if not tested:
        text += " No row of the primary metric has an interval or a test."
    return Facts(
        text, (*lines, *outcome_lines(manifest, report, "treatment")), "yes" if tested else "no"
    )


#: The function of each item, by the question's key.
SURVEY_ITEMS: Mapping[str, Callable[[StudyManifest, VerificationReport], Facts]] = MappingProxyType(
    {
        "order": order,
        "state": state,
        "rng": rng,
        "pairs": paired,
        "kernels": kernels,
        "perturbations": perturbations,
        "floor": floor,
        "uncertainty": uncertain,
    }
)
