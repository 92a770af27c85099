"""A study whose teacher and queue are components of their own, from its run to its verification."""

from __future__ import annotations

import pytest
from studies import Run, check, findings_text, study_in_process

from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey

MEMORY = "memory_study.py:make_program"
PLAN = StudyPlan(6, 3, 12, [0], ["carry", "momentum-reset"], placebos=1)
NAMED = {"params", "params/teacher", "buffers", "buffers/queue"}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("named", NAMED),
        ("none", {"params", "buffers"}),
        ("children", {"params/student", "params/teacher", "params/head", "buffers"}),
    ],
)
def test_groups_are_components_that_verify(
    tmp_path_factory: pytest.TempPathFactory, key: PrivateKey, groups: str, expected: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("groups") / "run"
    run: Run = study_in_process(folder, key, PLAN, MEMORY, arguments={"groups": groups})
    (record,) = run.manifest.seeds
    found = {name for name in record.components if name.partition("/")[0] in ("params", "buffers")}
    assert found == expected
    assert expected <= set(record.fork_digests)
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
