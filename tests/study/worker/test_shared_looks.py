from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import PLAN, study_in_process

from auditkit.program.reference import Reference
from auditkit.signing.keys import PrivateKey
from auditkit.study.worker.callbacks import TrunkCallback
from auditkit.study.worker.shared_looks import SharedLooks

HERE, THERE = ({"params": "a"}, {"probe": "c"}), ({"params": "b"}, {"probe": "c"})
SEVERAL = PLAN.changed(
    fork_at=(4, 6), horizon=10, seeds=[0], perturbations=["momentum-reset"], placebos=1
)


class Asked:
    """Gives another table at every look."""

    def __init__(self, *, several: bool = True) -> None:
        self.looks = SharedLooks(several=several)
        self.times = 0

    def at(self, commitments: Any, *, told: bool = False) -> int:
        tables, reference = self.looks.at(commitments, Reference() if told else None, self._look)
        assert not told or reference is not None
        return int(tables[""][0])

    def _look(self, reference: Reference | None) -> dict[str, Any]:
        self.times += 1
        return {"": np.array([self.times])}


def test_an_equal_state_is_looked_at_once_and_any_other_again() -> None:
    asked = Asked()
    assert [asked.at(state) for state in (HERE, HERE, THERE, HERE)] == [1, 1, 2, 3]


def test_a_look_without_a_reference_is_none_for_who_needs_one() -> None:
    asked = Asked()
    assert [asked.at(HERE), asked.at(HERE, told=True), asked.at(HERE)] == [1, 2, 2]


def test_where_nobody_else_looks_nothing_is_kept() -> None:
    asked = Asked(several=False)
    assert [asked.at(HERE), asked.at(HERE)] == [1, 2]
    assert asked.looks == SharedLooks()


def test_forks_of_one_trunk_look_at_its_end_once(
    tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auditkit.study.worker.callbacks.RECALIBRATION_BATCHES", 2)
    looked, look = [], TrunkCallback._tables_beside

    def counted(self: TrunkCallback, reference: Reference | None) -> Any:
        looked.append(reference)
        return look(self, reference)

    monkeypatch.setattr(TrunkCallback, "_tables_beside", counted)
    target, arguments = "token_study.py:make_program", {"view": "tokens"}
    run = study_in_process(tmp_path / "run", key, SEVERAL, target, arguments=arguments)
    assert len(looked) == 5  # t0 and t0+W of each fork, and T
    alone = study_in_process(tmp_path / "alone", key, SEVERAL.at(6), target, arguments=arguments)
    for name in ("control.outcome", "momentum-reset.outcome"):
        here = run.folder / "seed-0000-fork-6" / f"{name}.safetensors"
        there = alone.folder / "seed-0000" / f"{name}.safetensors"
        assert here.read_bytes() == there.read_bytes(), name
