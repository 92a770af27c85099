"""Which states of a sharded recording have a digest of the whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from record_examples import CHECKPOINT, RANK

from auditkit.files.recording_folder import RecordingFolder
from auditkit.recorder.sharded_states import states_of


def test_a_checkpoint_that_one_process_has_lost_has_none(tmp_path: Path) -> None:
    whole = replace(RANK, rank=0, checkpoints=(CHECKPOINT,), lost_checkpoints=())
    lost = replace(RANK, rank=1, checkpoints=(), lost_checkpoints=(CHECKPOINT,))
    (tmp_path / "rank-0001").mkdir()
    for rank in range(2):  # as where closing was cut short before the checkpoint was lost
        RecordingFolder(tmp_path, rank, 2).parts.write(CHECKPOINT.step, {})
    both = states_of(tmp_path, [whole, replace(whole, rank=1)])
    assert [state.step for state in both] == [CHECKPOINT.step]
    assert states_of(tmp_path, [whole, lost]) == ()
