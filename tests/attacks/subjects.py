"""The honest runs that are attacked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import forging
import in_process_loops
import pytest
from studies import PLAN, Run, study_in_process
from synthetic_recordings import Loop, Recording, write_recording, write_replay

from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey

#: Two seeds and few branches.
PAIR = StudyPlan(
    fork_at=6,
    window=3,
    horizon=14,
    seeds=[0, 1],
    perturbations=["momentum-reset", "order-reverse"],
    placebos=1,
)

#: One seed, fewer branches still, for what is replayed several times.
FEW = PLAN.with_perturbations(
    [spec for spec in PLAN.perturbations if spec.name in ("carry", "momentum-reset")]
)

STOLEN = "stolen_study.py:make_program"


def record_loop(folder: Path, key: PrivateKey, **fields: Any) -> Recording:
    """Record a real loop in this process; the recording is then signed with the key.

    Its verifier trusts the reviewer, too: without that, what a replay finds counts neither way.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder.parent / "config"))
        patch.delenv("AUDITKIT_KEY", raising=False)
        in_process_loops.record(in_process_loops.Loop(folder, **{"checkpoint_every": 0, **fields}))
    run = Recording(folder, key)
    forging.resign(run, key)
    return run


def _replayed(folder: Path, key: PrivateKey) -> Run:
    recording = write_recording(folder, key, Loop(checkpoints=(2, 5)))
    write_replay(recording)
    return recording


SUBJECTS: dict[str, Callable[[Path, PrivateKey], Run]] = {
    "study": study_in_process,
    "few": lambda folder, key: study_in_process(folder, key, FEW),
    "pair": lambda folder, key: study_in_process(folder, key, PAIR),
    "images": lambda folder, key: study_in_process(folder, key, FEW, STOLEN),
    "clock": lambda folder, key: study_in_process(
        folder, key, FEW, "faulty_study.py:make_clock_program"
    ),
    "recording": lambda folder, key: write_recording(
        folder, key, Loop(steps=1030, checkpoints=(3, 1030))
    ),
    "ranks": lambda folder, key: write_recording(folder, key, Loop(ranks=2, checkpoints=())),
    "replayed": _replayed,
    "loop": record_loop,
    "checkpoints": lambda folder, key: record_loop(folder, key, checkpoint_every=5),
}
