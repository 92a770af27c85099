"""Items 4 to 8 of the NeurIPS checklist: the facts that a manifest has, never the answer.

Item 12 and those of other lists are in :mod:`auditkit.paper.topics`. They ask about the paper,
which no manifest has seen. So the answer stays open, a failed check is named in the facts, and
what a person must add stands beside them.
"""

from __future__ import annotations

from datetime import datetime

from auditkit.formats.statements import Manifest
from auditkit.paper.citations import (
    answer_from_checks,
    back_flow_lines,
    clipped,
    count,
    digest,
    file_digest,
    listed,
    outcome_lines,
    pairs,
    passed,
    primary_lines,
    uncertainty,
    unreplayed,
)
from auditkit.records.manifest import CODE_FOLDER, StudyManifest
from auditkit.records.plan import StudyPlan
from auditkit.records.report import VerificationReport

TextAndEvidence = tuple[str, tuple[str, ...]]

#: What is said of what no check of this verifier has found.
REPORTED = "as the author's machine reported, not confirmed here"

_SETTING = ("model", "parameters", "trainable parameters", "optimizer", "hyper-parameters")


def reproducibility(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """Item 4."""
    plan = manifest.plan
    text = (
        f"A signed manifest records plan, program, environment, random streams and the evidence of "
        f"every step of {count(len(manifest.seeds), 'seed')} x "
        f"{count(len(plan.branch_names), 'branch', 'branches')}. {_replay(report)} Anybody with "
        f"the manifest and its files can repeat that: auditkit verify manifest.json --fingerprint "
        f"{report.signed_by or 'SHA256:...'} --allow-code."
    )
    ran = ", ".join(str(check.number) for check in report.checks if check.status == "passed")
    evidence = (f"checks {ran}: passed", *code_lines(manifest))
    return text, evidence


def access(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """Item 5."""
    program, environment = manifest.program, manifest.environment
    data = manifest.seeds[0].data
    dirty = " with uncommitted changes" if program.git_dirty else ""
    commit = (
        f"commit {clipped(program.git_commit)}{dirty}, {REPORTED}"
        if program.git_commit
        else "no repository"
    )
    arguments = f", arguments {pairs(program.arguments)}" if program.arguments else ""
    text = (
        f"The code as run lies beside the manifest: {listed(f.name for f in program.code)} "
        f"({commit}); factory {clipped(program.target)}{arguments}. Environment: "
        f"{clipped(environment.python)}, {pairs(environment.packages)}"
        f"{reported(report, 'python', 'packages')}. Data version given by the "
        f"program: {clipped(data.declared) if data.declared else 'none'}."
        f"{_opened(manifest, report)}"
    )
    evidence = (
        *code_lines(manifest),
        f"check 2 (recorded); data consumed by seed {manifest.seeds[0].seed}: "
        f"{digest(data.consumed_sha256)}",
        f"check 2 (recorded); probe: {digest(data.probe_sha256)}",
        *_opened_lines(manifest, report),
    )
    return text, evidence


def setting(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """Item 6."""
    plan, description, data = manifest.plan, manifest.program.description, manifest.seeds[0].data
    others = {name: text for name, text in description.items() if name not in _SETTING}
    about = "; ".join(filter(None, (pairs(description, _SETTING), pairs(others))))
    samples = "" if data.samples is None else f"; {count(data.samples, 'sample')} consumed a seed"
    text = (
        f"{about}. Training data: {pairs(data.loader)}{samples}. "
        f"Fork at step {listed(plan.forks, 24)}, window {plan.window}, "
        f"horizon {plan.horizon} (steps are batches){_further(plan)}; "
        f"{count(len(plan.seeds), 'seed')}: {listed(plan.seeds, 24)}. Augmentation draws: "
        f"{plan.augmentation_rng}.{unreplayed(report)}"
    )
    shown_by = "check 7" if passed(report, 7) else "check 2 (recorded)"
    evidence = (
        signed_line(report, "as the run described its own objects"),
        f"{shown_by}; seed {manifest.seeds[0].seed}, param_groups at t0: "
        f"{digest(manifest.seeds[0].branches[0].digests.get('t0', {}).get('param_groups'))}",
    )
    return text, evidence


def _further(plan: StudyPlan) -> str:
    steps = listed(plan.probe_at, 24)
    return f", branches evaluated after steps {steps} as well" if steps else ""


def significance(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """Item 7."""
    if report.estimates is None or not passed(report, 10):
        return answer_from_checks(report, (8, 9, 10))[1], ()
    varies = (
        " The variability captured is that of the study seed: initialisation, data order and "
        "augmentation, as far as the program draws them from the seeded streams."
    )
    said = (*primary_lines(report.estimates), *back_flow_lines(report.estimates))
    lines = tuple(f"check 10; {line}" for line in said)
    outcomes = outcome_lines(manifest, report, "treatment")
    return uncertainty(report.estimates) + varies, (*lines, *outcomes)


def resources(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """Item 8."""
    plan, environment = manifest.plan, manifest.environment
    steps = len(manifest.seeds) * plan.seed_steps
    size = sum(file.size for file in manifest.files)
    text = (
        f"Hardware: {pairs(environment.hardware)}{reported(report, 'hardware')}. "
        f"{count(plan.threads, 'thread')} a run. "
        f"{duration(manifest)} {steps:,} training steps in all; the files of the run take "
        f"{size:,} bytes."
    )
    said = "self-reported: no check shows on which hardware or when it ran"
    return text, (signed_line(report, said),)


def _replay(report: VerificationReport) -> str:
    if passed(report, 8):
        replayed = clipped(report.replay)
        return f"Re-executed in fresh processes with equal bits at every step: {replayed}."
    return answer_from_checks(report, (8,))[1]


def reported(report: VerificationReport, *sections: str) -> str:
    """What to say of a recorded environment; empty where a replay here found these sections."""
    differ = any(line.startswith(sections) for line in report.environment_differences)
    return "" if report.environment is not None and not differ else f" ({REPORTED})"


def signed_line(report: VerificationReport, what: str) -> str:
    """A line for what is signed, and rests on nothing that could be computed again."""
    return f"check 2; in the signed statement {digest(report.statement_sha256)}: {what}"


def code_lines(manifest: Manifest) -> tuple[str, ...]:
    """A line for each code file."""
    files = manifest.program.code[:8]
    lines = [
        f"check 3; {clipped(file.name)}: {file_digest(manifest, f'{CODE_FOLDER}/{file.name}')}"
        for file in files
    ]
    rest = len(manifest.program.code) - len(files)
    return (
        (*lines, f"check 3; {count(rest, 'more code file')}: see the manifest")
        if rest
        else (*lines,)
    )


def _opened(manifest: StudyManifest, report: VerificationReport) -> str:
    opened = manifest.opened
    if opened is None:
        return ""
    unhashed = len(opened.unhashed) + opened.left_out
    named = f" ({listed(opened.unhashed)})" if opened.unhashed else ""
    unopened = 0 if report.opened is None else report.opened.n_unopened
    text = (
        f" Files that the program opened while it was built: {len(opened.hashed) - unopened} "
        f"listed by SHA-256, {unhashed} that nobody hashed{named}."
    )
    if unopened:
        text += f" Listed besides, and opened by no process of the replay: {unopened}."
    return text


def _opened_lines(manifest: StudyManifest, report: VerificationReport) -> tuple[str, ...]:
    hashed = {} if manifest.opened is None else manifest.opened.hashed
    # Both lists are sorted, so the names that are shown here are among those of the report.
    unopened = () if report.opened is None else report.opened.unopened
    lines = [
        f"check 2 (recorded); {_verb(name in unopened)} {clipped(name)}: {digest(sha256)}"
        for name, sha256 in list(hashed.items())[:8]
    ]
    rest = len(hashed) - len(lines)
    more = [f"check 2 (recorded); {count(rest, 'more opened file')}: see the manifest"]
    return (*lines, *(more if rest else ()))


def _verb(is_unopened: bool) -> str:
    return "listed and not opened in the replay," if is_unopened else "opened"


def duration(manifest: Manifest) -> str:
    """How long the run took, by its own clock."""
    run = manifest.run
    try:
        begin, end = datetime.fromisoformat(run.started), datetime.fromisoformat(run.finished)
        seconds = (end - begin).total_seconds()
    except (TypeError, ValueError):  # not ISO 8601, or one with and one without a zone
        between = f"{clipped(run.started)} to {clipped(run.finished)}"
        return f"Run from {between} (self-reported: {REPORTED})."
    length = f"{seconds / 3600:,.2f} hours" if seconds >= 3600 else count(round(seconds), "second")
    return f"Wall-clock time of the whole run: {length} (self-reported: {REPORTED})."
