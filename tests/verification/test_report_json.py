from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checklist_example import PLAN, example_estimates, example_manifest, example_report

from auditkit.errors import AuditError, JsonError, SchemaError
from auditkit.formats import canonical, schema, structure
from auditkit.records.plan import StudyPlan
from auditkit.records.report import CheckResult, Finding, VerificationReport
from auditkit.statistics.estimands import estimate
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes
from auditkit.verification.procedure import VerifyRequest, verify
from auditkit.verification.report_json import check_agreement, report_from_json

MANIFEST = example_manifest()
REPORT = example_report()
HERE = example_report(replayed=False)


def changed_check(report: VerificationReport, number: int, **change: Any) -> VerificationReport:
    checks = (replace(c, **change) if c.number == number else c for c in report.checks)
    return replace(report, checks=tuple(checks))


def tables(seed: int) -> BranchTables:
    draw = np.random.default_rng(seed).random((6, 3), dtype=np.float32)
    table = (draw / draw.sum(axis=1, keepdims=True)).astype(np.float32)
    names = ("t0", "t0+W", "T", "t0/recalibrated", "t0+W/recalibrated", "T/recalibrated")
    return BranchTables(dict.fromkeys(names, table), None)


@pytest.mark.parametrize("n_seeds", [1, 2, 3, 7])
@pytest.mark.parametrize("metric", ["tv", "accuracy"])
def test_a_real_report_fits_the_schema_and_comes_back(n_seeds: int, metric: str) -> None:
    plan = StudyPlan(
        fork_at=3,
        window=2,
        horizon=9,
        seeds=[2**60 + n for n in range(n_seeds)],
        perturbations=["carry", "momentum-reset"],
        placebos=2,
        primary_metric=metric,
        margins={"accuracy": 0.1},
    )
    outcomes = [
        SeedOutcomes(
            seed=seed,
            labels=np.array([0, 1, 2, 0, 1, 2]),
            control=tables(n),
            placebos=(tables(100 + n), tables(200 + n)),
            treatments={"carry": tables(n), "momentum-reset": tables(300 + n)},
        )
        for n, seed in enumerate(plan.seeds)
    ]
    report = replace(REPORT, estimates=estimate(outcomes, plan))
    data = canonical.encode(report)
    assert report_from_json(data, what="report.json") == report


def test_a_failed_verification_fits_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(b"{}")
    report = verify(path, VerifyRequest(trusted=[], replay="none"))
    assert report.exit_code == 5
    assert report_from_json(canonical.encode(report), what="report.json") == report


def named(time: str) -> dict[str, Any]:
    """Estimates with a row of another time."""
    row = replace(example_estimates().signed[0], time=time)
    return structure.to_dict(replace(example_estimates(), signed=(row,)))


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"verdict": "fine"},
        {"exit_code": 7},
        {"exit_code": True},
        {"manifest_sha256": "0" * 63},
        {"manifest_sha256": "0" * 64 + "\n"},
        {"signed_by": ""},
        {"checks": []},
        {"environment_differences": [1]},
        {"estimates": {}},
        *({"estimates": named(time)} for time in ("t0", "t0+0", "t0+01", "t0+W ", "T\n", "t1")),
    ],
)
def test_another_shape_is_refused(change: dict[str, Any]) -> None:
    plain = {**structure.to_dict(REPORT), **change}
    with pytest.raises(SchemaError):
        report_from_json(canonical.dumps(plain), what="report.json")


def test_a_missing_field_is_refused() -> None:
    later = {"replays", "settings", "opened", "needs", "schema", "schema_version", "auditkit"}
    for name in set(structure.to_dict(REPORT)) - later:  # older builds have none of these
        plain = structure.to_dict(REPORT)
        del plain[name]
        with pytest.raises(SchemaError, match="missing"):
            report_from_json(canonical.dumps(plain), what="report.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"null", b'{"a":NaN}', b"\xff"])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises((JsonError, SchemaError)):
        report_from_json(data, what="report.json")


FINDING = (Finding("broken"),)


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (replace(REPORT, checks=REPORT.checks[::-1]), "not 1 to 10"),
        (replace(REPORT, checks=(REPORT.checks[0],) * 10), "not 1 to 10"),
        (changed_check(REPORT, 3, findings=FINDING), "check 3 is passed with 1 findings"),
        (changed_check(REPORT, 3, status="failed"), "check 3 is failed with 0 findings"),
        (changed_check(REPORT, 3, status="failed", findings=FINDING), "exit_code is 0"),
        (replace(REPORT, exit_code=6), "exit_code is 6, the findings ask for 0"),
        (replace(REPORT, exit_code=7), "exit_code is 7, the findings ask for 0"),
        (changed_check(REPORT, 8, status="needs consent"), "needs consent with 0 findings"),
        (
            changed_check(REPORT, 8, status="could not run", findings=FINDING),
            "could not run with 1 findings",
        ),
        (replace(REPORT, verdict="failed"), "the verdict is failed"),
        (replace(REPORT, verdict="integrity-only"), "check 8 is passed"),
        (replace(HERE, verdict="sampled"), "check 8 is not run"),
        (replace(REPORT, estimates=None), "check 10 is passed, estimates are missing"),
        (replace(HERE, estimates=example_estimates()), "check 10 is not run, estimates are given"),
        (changed_check(REPORT, 9, status="not run"), "not all of checks 1 to 9 passed"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(report: VerificationReport, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        report_from_json(canonical.encode(report), what="report.json")


def test_a_report_that_agrees_is_taken() -> None:
    check_agreement(REPORT, HERE, MANIFEST, what="report.json")
    check_agreement(HERE, HERE, MANIFEST, what="report.json")


def other_estimates(**change: Any) -> VerificationReport:
    return replace(REPORT, estimates=replace(example_estimates(), **change))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (replace(REPORT, statement_sha256="0" * 64), "statement_sha256 is another"),
        (replace(REPORT, signed_by="SHA256:other"), "signed_by is another"),
        (replace(REPORT, signed_by=None), "signed_by is another"),
        (changed_check(REPORT, 9, status="not run"), "check 9"),
        (changed_check(REPORT, 3, status="failed"), "check 3"),
        (other_estimates(primary_metric="js"), "another plan"),
        (other_estimates(placebos=9), "another plan"),
        (other_estimates(times={"t0+W": 1, "T": 2}), "another plan"),
        (
            other_estimates(signed=(replace(example_estimates().signed[0], perturbation="x"),)),
            "another plan",
        ),
        (
            other_estimates(signed=(replace(example_estimates().signed[0], seeds=(99,)),)),
            "another plan",
        ),
        (other_estimates(times={**PLAN.times, "t0+1": PLAN.fork_at + 1}), "another plan"),
        (
            other_estimates(signed=(replace(example_estimates().signed[0], time="t0+1"),)),
            "another plan",
        ),
    ],
)
def test_a_report_that_does_not_agree_is_refused(given: VerificationReport, says: str) -> None:
    with pytest.raises(AuditError, match=says) as caught:
        check_agreement(given, HERE, MANIFEST, what="report.json")
    assert caught.value.exit_code == 1


def test_a_replay_that_found_more_wrong_need_not_agree_beyond_the_files() -> None:
    seen = replace(REPORT, verdict="failed", exit_code=1, estimates=None)
    executed = replace(seen, environment=MANIFEST.environment)
    for number in (4, 9):
        found = changed_check(executed, number, status="failed", findings=(Finding("m"),))
        check_agreement(found, HERE, MANIFEST, what="report.json")
        with pytest.raises(AuditError, match=f"check {number}"):  # it was not executed
            check_agreement(replace(found, environment=None), HERE, MANIFEST, what="report.json")
        with pytest.raises(AuditError, match=f"check {number}"):  # nor does it verify by that
            check_agreement(replace(found, verdict="verified"), HERE, MANIFEST, what="report.json")
    other_files = changed_check(executed, 3, status="failed")
    with pytest.raises(AuditError, match="check 3"):
        check_agreement(other_files, HERE, MANIFEST, what="report.json")


def test_the_schema_has_a_place_for_every_field() -> None:
    full = replace(
        REPORT,
        environment_differences=("packages: torch is 1 there, 2 here",),
        checks=(
            CheckResult(1, "failed", "1 finding", (Finding("m", "w", 3, "c", 6),), ("odd",)),
            *REPORT.checks[1:],
        ),
    )
    schema.check(structure.to_dict(full), "report", what="report")
    assert PLAN.seeds == (0, 1, 2, 3)
