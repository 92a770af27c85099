"""Facts by topic, for the lists whose items ask about the same things in other words.

Each gives a text and its evidence, from manifest and report alone; what both do not say is not
said here. The answer stays a person's (see :mod:`auditkit.paper.neurips`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from auditkit.formats.statements import Manifest
from auditkit.paper.citations import (
    MAX_LISTED,
    answer_from_checks,
    cited_seeds,
    clipped,
    count,
    digest,
    digest_at,
    file_digest,
    listed,
    more_seeds,
    outcome_lines,
    pairs,
    passed,
    unreplayed,
)
from auditkit.paper.neurips import TextAndEvidence, duration, reported, signed_line
from auditkit.paper.survey import rng
from auditkit.records.manifest import StudyManifest
from auditkit.records.metric_names import is_measure
from auditkit.records.recording import RecordingManifest
from auditkit.records.report import VerificationReport

_Record = TypeVar("_Record", StudyManifest, RecordingManifest)

#: What there is to say where no manifest can say anything.
NOTHING: TextAndEvidence = ("No manifest shows anything of this.", ())


def together(
    *topics: Callable[[_Record, VerificationReport], TextAndEvidence],
) -> Callable[[_Record, VerificationReport], TextAndEvidence]:
    """Several topics as one; what two of them say stands there once."""

    def told(manifest: _Record, report: VerificationReport) -> TextAndEvidence:
        parts = [topic(manifest, report) for topic in topics]
        lines = dict.fromkeys(line for _, evidence in parts for line in evidence)
        texts = dict.fromkeys(text for text, _ in parts)
        whole = [
            text for text in texts if not any(text in other for other in texts.keys() - {text})
        ]
        return " ".join(whole), tuple(lines)

    return told


def nothing(_: Manifest, __: VerificationReport) -> TextAndEvidence:
    """An item that is a person's alone."""
    return NOTHING


def seeding(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """How random streams were seeded."""
    facts = rng(manifest, report)
    return facts.text, facts.evidence


def software(manifest: Manifest, report: VerificationReport) -> TextAndEvidence:
    """Interpreter, distributions and math libraries."""
    environment = manifest.environment
    text = f"{clipped(environment.python)}; {pairs(environment.packages)}"
    text += f"{reported(report, 'python', 'packages', 'libraries')}."
    if environment.libraries:
        text += f" Math libraries: {pairs(environment.libraries)}."
    return text, (signed_line(report, "environment, as the run recorded it"),)


def hardware(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """What it ran on."""
    text = f"{pairs(manifest.environment.hardware)}; {count(manifest.plan.threads, 'thread')} a run"
    line = signed_line(report, "hardware, self-reported: no check shows on which it ran")
    return f"Hardware: {text}{reported(report, 'hardware')}.", (line,)


def runs(manifest: StudyManifest, _: VerificationReport) -> TextAndEvidence:
    """How many training runs there were."""
    plan, n_seeds = manifest.plan, len(manifest.seeds)
    n_branches = len(plan.branch_names)
    evaluations = n_seeds * n_branches * len(plan.probed)
    text = (
        f"{count(n_seeds, 'seed')} ({listed(plan.seeds, 24)}): a trunk each, and from it "
        f"{count(n_branches, 'branch', 'branches')} ({listed(plan.branch_names, 24)}), "
        f"{n_seeds * n_branches:,} in all; every one is in the manifest and evaluated at "
        f"{count(len(plan.probed), 'time')}, {evaluations:,} evaluations in all."
    )
    lines = [
        f"check 3; seed {seed.seed}: fork file {file_digest(manifest, seed.fork)}"
        for seed in cited_seeds(manifest)
    ]
    return text, (*lines, *more_seeds(manifest, 3))


def measures(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """What the results are numbers of."""
    primary = manifest.plan.primary_metric
    own = "a measure of the program's own" if is_measure(primary) else "see auditkit's manual"
    text = f"Primary metric of the plan: {clipped(primary)} ({own})."
    if report.estimates is not None and passed(report, 10):
        names = sorted({row.metric for row in report.estimates.rows} - {primary})
        text += f" Others: {listed(names, 24) or 'none'}."
    times = ", ".join(f"{name} (step {step})" for name, step in manifest.plan.probed.items())
    line = f"check 2 (recorded); probe: {digest(manifest.seeds[0].data.probe_sha256)}"
    return f"{text} Evaluated on the program's probe at {times}.", (
        line,
        *outcome_lines(manifest, report, "treatment"),
    )


def data(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """Which data were consumed."""
    record = manifest.seeds[0].data
    samples = (
        "how many different samples there are is not recorded"
        if record.samples is None
        else f"{count(record.samples, 'sample')} consumed a seed, repetitions counted"
    )
    version = clipped(record.declared) if record.declared else "none"
    text = f"{pairs(record.loader)}; {samples}. Version given by the program: {version}."
    text += unreplayed(report)
    lines = [
        f"check 2 (recorded); data consumed by seed {seed.seed}: "
        f"{digest(seed.data.consumed_sha256)}"
        for seed in cited_seeds(manifest)
    ]
    probe = f"check 2 (recorded); probe: {digest(record.probe_sha256)}"
    return text, (*lines, *more_seeds(manifest, 2), probe)


def evaluation(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """What is known of the code that evaluates."""
    again = {
        "verified": "the listed code gave every one of them again (check 8)",
        "sampled": f"the listed code gave some of them again (check 8: {clipped(report.replay)})",
    }.get(report.verdict, "that the listed code gives them was not replayed")
    text = f"What evaluation gave is in the outcome files of all branches; {again}."
    line = f"check 2 (recorded); probe: {digest(manifest.seeds[0].data.probe_sha256)}"
    return text, (line, *outcome_lines(manifest, report, "treatment"))


def models(manifest: StudyManifest, _: VerificationReport) -> TextAndEvidence:
    """Which weights are there."""
    text = (
        f"The complete training state at t0 (step {manifest.plan.fork_at}) of every seed lies "
        "beside the manifest as safetensors, weights included; of later weights there are digests "
        "only, and a replay makes them again."
    )
    lines = [
        f"check 3; seed {seed.seed}: {clipped(seed.fork)} {file_digest(manifest, seed.fork)}"
        for seed in cited_seeds(manifest)
    ]
    return text, (*lines, *more_seeds(manifest, 3))


def commands(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """What to type, to make the results again."""
    signer = report.signed_by or "SHA256:..."
    verify = f"auditkit verify manifest.json --fingerprint {signer} --allow-code"
    again = f"auditkit reproduce manifest.json --fingerprint {signer} --allow-code --out again"
    own = manifest.program.command
    ran = f" The script's own command: {clipped(' '.join(own))}." if own else ""
    arguments = pairs(manifest.program.arguments)
    data_at = f" Arguments, where data lie among them (--arg): {arguments}." if arguments else ""
    text = (
        f"Replay of every branch, and the tables: {verify}. The same plan run anew on another "
        f"machine: {again}.{ran}{data_at}"
    )
    return text, (signed_line(report, f"plan and program {clipped(manifest.program.target)}"),)


def duration_and_size(manifest: Manifest, report: VerificationReport) -> TextAndEvidence:
    """How long it took, and how much it takes."""
    size = sum(file.size for file in manifest.files)
    text = f"{duration(manifest)} The {len(manifest.files):,} files take {size:,} bytes."
    return text, (signed_line(report, "times, self-reported; sizes, which check 3 found again"),)


def versions(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """Which versions of other people's software and data were used."""
    declared = manifest.seeds[0].data.declared
    text = (
        f"Versions of what was imported: {pairs(manifest.environment.packages)}. Data version "
        f"given by the program: {clipped(declared) if declared else 'none'}. Licences are not "
        "recorded."
    )
    plugs = [
        f"check 2 (recorded); plug-in {clipped(plug.distribution)} {clipped(plug.version)}"
        for plug in manifest.plug_ins[:MAX_LISTED]
    ]
    consumed = digest(manifest.seeds[0].data.consumed_sha256)
    line = f"check 2 (recorded); data consumed by seed {manifest.seeds[0].seed}: {consumed}"
    return text, (signed_line(report, "environment, as the run recorded it"), line, *plugs)


def inventory(manifest: Manifest, report: VerificationReport) -> TextAndEvidence:
    """Which files there are."""
    roles: dict[str, int] = {}
    for file in manifest.files:
        roles[file.role] = roles.get(file.role, 0) + 1
    kinds = ", ".join(f"{clipped(role)} {n}" for role, n in sorted(roles.items()))
    text = (
        f"{count(len(manifest.files), 'file')} by role: {kinds}. Each was found with its size and "
        "SHA-256; the manifest that lists them is signed."
    )
    line = f"check 3; list of files: manifest sha256 {digest(report.manifest_sha256)}"
    return text, (line,)


def replayed(manifest: StudyManifest, report: VerificationReport) -> TextAndEvidence:
    """Whether it could be executed again."""
    if not passed(report, 8):
        return answer_from_checks(report, (8,))[1], ()
    text = f"Executed again in fresh processes, equal at every step: {clipped(report.replay)}."
    if report.environment_differences:
        text += f" Its environment differs in: {listed(report.environment_differences)}."
    if report.verdict != "verified":  # which branches were drawn stands in no report
        statement = digest(report.statement_sha256)
        return text, (f"check 8; {clipped(report.replay)}, of the statement {statement}",)
    lines = [
        f"check 8; seed {seed.seed}, control, params at T: "
        f"{digest(digest_at(seed.branches[0], 'T', 'params'))}"
        for seed in cited_seeds(manifest)
    ]
    return text, (*lines, *more_seeds(manifest, 8))


def by_others(_: Manifest, report: VerificationReport) -> TextAndEvidence:
    """Whose signed reports lie beside the manifest."""
    good = [item for item in report.countersignatures if item.counts]
    if not good:
        return "No countersignature of a trusted key other than the author's lies there.", ()
    text = f"{count(len(good), 'countersignature')} of trusted keys other than the author's."
    lines = [
        f"check 2; {clipped(item.file)}, signed by {clipped(item.signed_by)}: "
        f"{clipped(item.verdict)}, {clipped(item.remark)}"
        for item in good[:MAX_LISTED]
    ]
    return text, (*lines, f"check 2; manifest sha256 {digest(report.manifest_sha256)}")
