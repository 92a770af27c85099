"""What a recording has to say to lists about papers: one run, without branches or estimands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from auditkit.paper.citations import (
    MAX_LISTED,
    clipped,
    count,
    digest,
    file_digest,
    listed,
    pairs,
    passed,
    unreplayed,
)
from auditkit.paper.neurips import REPORTED, TextAndEvidence, code_lines, reported, signed_line
from auditkit.paper.topics import by_others, duration_and_size, inventory, software, together
from auditkit.records.recording import RankRecord, RecordingManifest
from auditkit.records.report import VerificationReport

_Facts = Callable[[RecordingManifest, VerificationReport], TextAndEvidence]


def access(manifest: RecordingManifest, _: VerificationReport) -> TextAndEvidence:
    """The code."""
    program = manifest.program
    dirty = " with uncommitted changes" if program.git_dirty else ""
    told = f"commit {clipped(program.git_commit)}{dirty}, {REPORTED}"
    commit = told if program.git_commit else "no commit"
    text = (
        f"The code as run lies beside the manifest: {listed(f.name for f in program.code)} "
        f"({commit}). Script {clipped(program.target)}, arguments "
        f"{clipped(shlex.join(manifest.command)) or 'none'}."
    )
    return text, code_lines(manifest)


def setting(manifest: RecordingManifest, report: VerificationReport) -> TextAndEvidence:
    """What was trained, and how."""
    first = manifest.ranks[0]
    loaders = "; ".join(
        f"{clipped(name) or 'training'} loader ({pairs(about)})"
        for name, about in list(first.loaders.items())[:MAX_LISTED]
    )
    text = f"{pairs(manifest.program.description)}. {loaders or 'No loader'}.{unreplayed(report)}"
    groups = first.final.get("param_groups")
    own = [f"check 2 (recorded); param_groups at the end: {digest(groups)}"] if groups else []
    return text, (signed_line(report, "as the run described its own objects"), *own)


def runs(manifest: RecordingManifest, _: VerificationReport) -> TextAndEvidence:
    """How many runs there were."""
    first = manifest.ranks[0]
    resumed = f"; resumed at steps {listed(first.resumed_at)}" if first.resumed_at else ""
    text = (
        f"One run: {count(first.steps, 'step')} in {count(first.epochs, 'epoch')}, "
        f"{count(len(manifest.ranks), 'process', 'processes')}{resumed}."
    )
    return text, tuple(_of_ranks(manifest, "order sha256", lambda rank: rank.order_sha256))


def data(manifest: RecordingManifest, report: VerificationReport) -> TextAndEvidence:
    """Which data were consumed."""
    first = manifest.ranks[0]
    loaders = "; ".join(pairs(about) for about in list(first.loaders.values())[:MAX_LISTED])
    lines = tuple(_of_ranks(manifest, "data consumed", lambda rank: rank.consumed_sha256))
    text = f"{loaders or 'No loader'}; {count(first.steps, 'batch', 'batches')} consumed."
    return f"{text}{unreplayed(report)}", lines


def seeding(manifest: RecordingManifest, _: VerificationReport) -> TextAndEvidence:
    """Random streams: a recorder seeds none."""
    contract = manifest.ranks[0].rng
    seed = "no seed was named" if manifest.seed is None else f"the user names seed {manifest.seed}"
    text = (
        f"The script seeds its own streams; {seed}. Their states are recorded: "
        f"{listed((stream.stream for stream in contract.streams), 24) or 'none'}. Not covered: "
        f"{listed(contract.uncovered) or 'nothing'}."
    )
    lines = [
        f"check 5; {clipped(stream.stream)}: start {digest(stream.start)}, end {digest(stream.end)}"
        for stream in contract.streams[:MAX_LISTED]
        if stream.start is not None
    ]
    return text, tuple(lines)


def models(manifest: RecordingManifest, _: VerificationReport) -> TextAndEvidence:
    """Which weights are there."""
    points = [point for rank in manifest.ranks for point in rank.checkpoints]
    steps = listed(dict.fromkeys(point.step for point in points), 24)
    text = (
        f"Checkpoints of the complete training state (step {steps}), as safetensors."
        if points
        else "No checkpoint is among the files; of the weights there are digests only."
    )
    lines = [
        f"check 3; {clipped(point.file)}: {file_digest(manifest, point.file)}"
        for point in points[:MAX_LISTED]
    ]
    return text, tuple(lines)


def hardware(manifest: RecordingManifest, report: VerificationReport) -> TextAndEvidence:
    """What it ran on."""
    line = signed_line(report, "hardware, self-reported: no check shows on which it ran")
    told = f"{pairs(manifest.environment.hardware)}{reported(report, 'hardware')}"
    return f"Hardware: {told}.", (line,)


def commands(manifest: RecordingManifest, report: VerificationReport) -> TextAndEvidence:
    """What to type, to make the run again."""
    signer = report.signed_by or "SHA256:..."
    script = clipped(shlex.join([manifest.program.target, *manifest.command]))
    text = (
        f"Files and signature: auditkit verify manifest.json --fingerprint {signer}. Every step "
        f"compared with the record: auditkit replay manifest.json --fingerprint {signer} -- python "
        f"{script}."
    )
    return text, (signed_line(report, "script and arguments"),)


def replayed(_: RecordingManifest, report: VerificationReport) -> TextAndEvidence:
    """Whose signed replays lie beside it."""
    if not passed(report, 8):
        how = "auditkit replay manifest.json -- COMMAND, by somebody else, makes one"
        return f"No signed replay of somebody else lies there ({how}).", ()
    good = [item for item in report.replays if item.counts]
    text = f"Replayed and found equal by others: {clipped(report.replay)}."
    lines = [
        f"check 8; {clipped(item.file)}, signed by {clipped(item.signed_by)}: "
        f"{clipped(item.remark)}"
        for item in good[:MAX_LISTED]
    ]
    return text, (*lines, f"check 8; manifest sha256 {digest(report.manifest_sha256)}")


def versions(manifest: RecordingManifest, report: VerificationReport) -> TextAndEvidence:
    """Versions of other people's software."""
    text = f"Versions of what was imported: {pairs(manifest.environment.packages)}."
    line = signed_line(report, "environment, as the run recorded it")
    return f"{text} Licences are not recorded.", (line,)


def _of_ranks(
    manifest: RecordingManifest, what: str, of: Callable[[RankRecord], str]
) -> Iterator[str]:
    ranks = manifest.ranks[:MAX_LISTED]
    for rank in ranks:
        yield f"check 2 (recorded); rank {rank.rank}, {what}: {digest(of(rank))}"
    rest = len(manifest.ranks) - len(ranks)
    if rest:
        yield f"check 2 (recorded); {count(rest, 'more rank')}: see the manifest"


#: What has facts for a question, by its key; for others a recording has none.
RECORDING_FACTS: Mapping[str, _Facts] = MappingProxyType(
    {
        "neurips-4": together(commands, replayed),
        "neurips-5": together(access, software),
        "neurips-6": setting,
        "neurips-8": together(hardware, duration_and_size),
        "neurips-12": versions,
        "pineau-3.1": data,
        "pineau-3.4": data,
        "pineau-4.1": software,
        "pineau-4.2": access,
        "pineau-4.4": models,
        "pineau-4.5": commands,
        "pineau-5.1": setting,
        "pineau-5.2": runs,
        "pineau-5.5": duration_and_size,
        "pineau-5.6": together(hardware, software),
        "aaai-4.7": seeding,
        "aaai-4.8": together(hardware, software),
        "aaai-4.10": runs,
        "aaai-4.13": setting,
        "reforms-2a": data,
        "reforms-2b": access,
        "reforms-2c": together(hardware, software, duration_and_size),
        "acm-available": inventory,
        "acm-functional-documented": commands,
        "acm-functional-complete": together(inventory, access),
        "acm-functional-exercisable": replayed,
        "acm-reproduced": by_others,
        "mlsys-a.1": commands,
        "mlsys-a.2-program-and-model": together(setting, models),
        "mlsys-a.2-data-set": data,
        "mlsys-a.2-run-time-environment": software,
        "mlsys-a.2-hardware": hardware,
        "mlsys-a.2-run-time-state": seeding,
        "mlsys-a.2-execution": together(runs, commands),
        "mlsys-a.2-metrics": inventory,
        "mlsys-a.2-disk-space-and-time": duration_and_size,
        "mlsys-a.3": access,
        "mlsys-a.4": software,
        "mlsys-a.5": commands,
        "mlsys-a.6": replayed,
    }
)
