"""What a rank leaves for the manifest: its record, its files, and what it ran on."""

from __future__ import annotations

from auditkit.errors import RecordingIncomplete
from auditkit.files.recording_folder import RankResult, RecordingFolder
from auditkit.files.store import PARTIAL
from auditkit.observe.loader.recorded_loader import RecordedLoader
from auditkit.observe.machine.code import user_code
from auditkit.observe.machine.environment import environment
from auditkit.recorder.writer import RecordingWriter
from auditkit.records.manifest import CODE_FOLDER
from auditkit.study.stages.describer import describe_loader


def make_rank_result(
    writer: RecordingWriter,
    folder: RecordingFolder,
    rank: int,
    loaders: dict[str, RecordedLoader],
) -> RankResult:
    """Everything that a rank leaves for the manifest.

    Raises:
        RecordingIncomplete: When no step was recorded.
    """
    if not writer.steps:
        raise RecordingIncomplete(
            "no step was recorded",
            hint="iterate the loader that wrap was given; Accelerate and Lightning make new ones, "
            "see auditkit.integrations",
        )
    described = {name: describe_loader(loader.base) for name, loader in loaders.items()}
    record = writer.record(rank, described, loaders[""].epoch + 1)
    code = user_code(folder.path / CODE_FOLDER if rank == 0 else None, PARTIAL, main=True)
    roles = {
        **dict.fromkeys(record.traces, "trace"),
        **{checkpoint.file: "checkpoint" for checkpoint in record.checkpoints},
    }
    if record.scalars is not None:
        roles[record.scalars] = "scalars"
    if rank == 0:
        roles |= {f"{CODE_FOLDER}/{file.name}": "code" for file in code}
    return RankResult(writer.journal.started, record, folder.files(roles), environment(), code)
