"""Values in a signed plan that no perturbation has: the manifest's fault, and no wrong use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import forging
import pytest
from studies import (
    PLAN,
    Run,
    check,
    check_files,
    failures,
    findings_text,
    result_of,
    study_in_process,
)

from auditkit.signing.keys import PrivateKey


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    plan = PLAN.changed(perturbations=["carry", "order-shuffle"])
    return study_in_process(tmp_path_factory.mktemp("forged") / "run", key, plan)


@pytest.mark.parametrize(
    ("index", "parameters", "says"),
    [
        (0, {"yoked": "maybe"}, "carry: yoked=maybe is not allowed (expected no or yes)"),
        (0, {"moments": "m"}, "carry has no parameter 'moments'"),
        (1, {"draw": -1}, "order-shuffle: draw=-1 is not allowed"),
        (1, {}, "a parameter is left open"),
    ],
)
def test_a_parameter_that_no_run_writes_fails_check_4(
    run: Run, copied: Callable[[Run], Run], index: int, parameters: dict[str, Any], says: str
) -> None:
    def edit(predicate: dict[str, Any]) -> None:
        named = predicate["plan"]["perturbations"][index]
        named["parameters"] = parameters
        for seed in predicate["seeds"]:
            branch = seed["branches"][3 + index]
            branch["perturbation"] = named
            values = "".join(f"--{key}-{value}" for key, value in parameters.items())
            branch["name"] = f"{named['name']}{values}"

    forged = copied(run)
    forging.edit_predicate(forged, edit)
    report = check_files(forged)
    assert (report.exit_code, failures(report)) == (1, {4}), findings_text(report)
    assert says in findings_text(report)
    replayed = check(forged)
    assert (replayed.exit_code, failures(replayed)) == (1, {4})
    assert result_of(replayed, 8).summary == "no run has such a plan, see check 4"
