from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from documents import PAGES, table
from studies import PROGRAMS, InProcessWorkers, check, findings_text, study_in_process

from auditkit.cli.designs import (
    DESIGN,
    REGIMES,
    Design,
    factory_arguments,
    parse_design,
    parse_segments,
    refuse_design,
    replaced,
)
from auditkit.cli.study_plans import overrides, plan_options, program_plan, script_plan, values_of
from auditkit.errors import AuditError, PlanError, UsageError
from auditkit.records.job import ProgramSource
from auditkit.records.plan import StudyPlan
from auditkit.records.segments import SegmentPlan
from auditkit.signing.keys import PrivateKey

TARGET = "histories_study.py:of_regime"
GIVEN = {"fork_at": 6, "seeds": [0], "placebos": 1}


def planned(design: str, **given: Any) -> StudyPlan:
    source = ProgramSource(TARGET, str(PROGRAMS), {})
    values = {**GIVEN, DESIGN: parse_design(design), **given}
    return program_plan(InProcessWorkers(), source, values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resonant-strong", "negative"])
def test_a_regime_makes_a_study_that_verifies(tmp_path: Path, key: PrivateKey, name: str) -> None:
    arguments = factory_arguments({DESIGN: parse_design(f"back-flow:{name}")}, [])
    plan = planned(f"back-flow:{name}")
    report = check(study_in_process(tmp_path / "run", key, plan, TARGET, arguments=arguments))
    assert report.verdict == "verified", findings_text(report)
    assert report.estimates is not None
    is_zero = {row.exactly_zero for row in report.estimates.back_flow}
    assert is_zero == {name == "negative"}


def test_a_regime_sets_window_horizon_break_and_treatment() -> None:
    plan = planned("back-flow:resonant-mid")
    assert (plan.window, plan.horizon) == (6, 18)
    assert plan.treatment_names == ("data-change--name-blur",)
    assert plan.causal_break is not None
    assert plan.causal_break.typed == "optimizer-reset"


def test_options_come_before_a_design_and_an_arg_before_a_regimes() -> None:
    given = {"horizon": 30, "window": 4, "causal_break": "momentum-reset"}
    plan = planned("back-flow:standard", **given, perturbations=("momentum-reset",))
    assert (plan.window, plan.horizon, plan.treatment_names) == (4, 30, ("momentum-reset",))
    assert plan.causal_break is not None
    assert plan.causal_break.typed == "momentum-reset"
    found = factory_arguments({DESIGN: parse_design("back-flow:standard")}, ["lr=1", "data=here"])
    assert (found["lr"], found["momentum"], found["data"]) == ("1", "0.9", "here")


def test_a_design_without_a_regime_gives_the_factory_nothing() -> None:
    plan = planned("back-flow", window=5, perturbations=("momentum-reset",))
    assert (plan.horizon, plan.specs[-1].typed) == (16, "optimizer-reset")
    assert factory_arguments({DESIGN: Design()}, []) == {}


def test_a_design_sets_the_end_in_place_of_the_plans_and_keeps_its_break() -> None:
    base = {"fork_at": 7, "window": 4, "horizon": 60, "causal_break": "momentum-reset"}
    assert Design().filled(base, {}) == {**base, "horizon": 15}
    assert Design().filled(base, {"horizon": 30})["horizon"] == 30


@pytest.mark.parametrize(
    ("design", "given", "said"),
    [
        ("back-flow", {}, "T to 13 in place of the plan's 60"),
        ("back-flow", {"horizon": 30}, ""),
        ("back-flow", {"window": 4}, "T to 15 in place of the plan's 60"),
        (
            "back-flow:negative",
            {},
            "W to 1 in place of the plan's 3, T to 9 in place of the plan's 60, the treatment to "
            "carry in place of the plan's momentum-reset, order-reverse, the segments to (B has a "
            "share of 0 of A's indices; BatchNorm's statistics are held from t0 on; momentum "
            "against gradient is measured) in place of the plan's (B has A's classes)",
        ),
    ],
)
def test_what_a_design_takes_the_place_of_is_told(
    design: str, given: dict[str, Any], said: str
) -> None:
    specs = ("momentum-reset", "order-reverse")
    plan = StudyPlan(7, 3, 60, [0], specs, segments=SegmentPlan(same_classes=True))
    base = values_of(plan)
    assert replaced(base, parse_design(design).filled(base, given), given) == said


def test_a_command_says_what_a_design_takes_the_place_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = ProgramSource("tiny_study.py:make_program", str(PROGRAMS), {})
    for given in ({}, {DESIGN: Design()}):
        program_plan(InProcessWorkers(), source, given)  # type: ignore[arg-type]
    said = "auditkit: --design sets T to 12 in place of the plan's 14\n"
    assert capsys.readouterr().err == said


def test_a_design_lacks_what_it_does_not_set() -> None:
    with pytest.raises(PlanError, match="no option gives window, horizon, perturbations"):
        planned("back-flow")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("forward-flow", "there is no such design .*back-flow"),
        ("", "there is no such design"),
        ("back-flow:", "there is no such regime .*standard, resonant-strong"),
        ("back-flow:Standard", "there is no such regime"),
    ],
)
def test_what_is_no_design_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_design(text)


def test_where_the_plan_is_not_made_there_is_no_design() -> None:
    given = {DESIGN: Design(), "fork_at": 7, "window": 4, "horizon": 14}
    with pytest.raises(UsageError, match="--design and a script exclude each other"):
        script_plan({**given, "perturbations": ["momentum-reset"]})
    with pytest.raises(UsageError, match="--design and --plan exclude each other"):
        refuse_design(given, "--plan")


def test_the_manual_has_every_regime() -> None:
    headings = ("regime", "W", "`lr`", "`momentum`", "A / A' / B", "`overlap`", "`same_classes`")
    assert table(PAGES["estimands"], *headings) == [
        [
            *(f"`{name}`", str(regime.steps), regime.lr, regime.momentum),
            f"{regime.history} / {regime.other} / {regime.segment}",
            *(regime.overlap, regime.same_classes),
        ]
        for name, regime in REGIMES.items()
    ]


def test_a_regime_says_of_the_segments_what_it_gives_the_factory() -> None:
    plan = planned("back-flow:resonant-mid")
    assert plan.segments == SegmentPlan(0.75, True, True, True)
    assert planned("back-flow:resonant-mid", segments=None).segments is None
    assert planned("back-flow:negative").segments == SegmentPlan(0.0, False, True, True)


def test_segments_are_typed_as_words() -> None:
    text = "overlap=0.75,same-classes,hold-batchnorm,alignment"
    assert parse_segments(text) == SegmentPlan(0.75, True, True, True)
    assert parse_segments("alignment") == SegmentPlan(alignment=True)
    assert parse_segments("none") is None


@pytest.mark.parametrize(
    "text", ["", "overlap", "overlap=x", "alignment=1", "alignment,alignment", "same", "overlap=-1"]
)
def test_words_that_say_nothing_of_segments_are_refused(text: str) -> None:
    with pytest.raises(AuditError, match=r"says nothing|overlap is 0 to 1"):
        parse_segments(text)


def test_what_a_program_plans_of_break_and_segments_can_be_taken_out() -> None:
    command: Any = plan_options(click.command()(lambda: None))
    names = [str(option.name) for option in command.params]
    nothing = {name: () if name in {"perturb", "margins"} else None for name in names}
    del nothing["arguments"]
    given = overrides(**{**nothing, "causal_break": "none", "segments": "none"})  # type: ignore[arg-type]
    assert given == {"causal_break": None, "segments": None}
    assert overrides(**nothing) == {}  # type: ignore[arg-type]
    plan = planned("back-flow:standard", **given)
    assert (plan.causal_break, plan.segments) == (None, None)
