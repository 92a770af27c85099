"""What a study has otherwise than its plan is named, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from record_examples import MANIFEST
from studies import PLAN

from auditkit.records.plan import PerturbationSpec
from auditkit.study.deviations import plan_deviations, program_deviations

PLANNED = PLAN.changed(seeds=range(4), margins={"accuracy": 0.01})

SGD = "lr=0.001, momentum=0.9, dampening=0, weight_decay=0.0001, nesterov=False, maximize=False"
ADAM = "lr=0.001, betas=(0.9, 0.999), eps=1e-08"


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"horizon": 15}, ["horizon: 14 was planned, 15 was run"]),
        ({"seeds": [0, 1, 3, 2]}, ["seeds: 0-3 was planned, 0-1, 3, 2 was run, which is another"]),
        (
            {"seeds": [0, 1, 2, 7, 8]},
            ["seeds planned and not run: 3", "seeds run and not planned: 7-8"],
        ),
        (
            {"perturbations": ["carry", "momentum-reset", "batchnorm-reset", "order-shuffle"]},
            [
                "perturbations planned and not run: order-reverse",
                "perturbations run and not planned: order-shuffle",
            ],
        ),
        (
            {"margins": {"accuracy": 0.02, "nll": 1.0}},
            [
                "margins, accuracy: 0.01 was planned, 0.02 was run",
                "margins, nll: nothing was planned, 1.0 was run",
            ],
        ),
    ],
)
def test_of_a_plan_every_change_has_a_line(changes: dict[str, Any], lines: list[str]) -> None:
    found = list(plan_deviations(PLANNED, PLANNED.changed(**changes)))
    assert len(found) == len(lines), found
    for line, start in zip(found, lines, strict=True):
        assert line.startswith(f"plan, {start}")


def test_perturbations_that_are_typed_alike_are_told_apart() -> None:
    whole, text = (PLAN.with_perturbations([PerturbationSpec("x", {"n": n})]) for n in (1, "1"))
    assert len(list(plan_deviations(whole, text))) == 2


def described(**changes: str) -> list[str]:
    planned = replace(MANIFEST.program, description={"model": "Net", "hyper-parameters": SGD})
    description = {**planned.description, **{k.replace("_", "-"): v for k, v in changes.items()}}
    return list(
        program_deviations(
            planned, arguments=planned.arguments, description=description, code=planned.code
        )
    )


def test_of_hyper_parameters_those_are_named_that_differ() -> None:
    head = "program, hyper-parameters: "
    assert described() == []
    faster = SGD.replace("lr=0.001", "lr=0.002").replace("nesterov=False", "nesterov=True")
    assert described(hyper_parameters=faster) == [
        f"{head}lr 0.001 -> 0.002",
        f"{head}nesterov False -> True",
    ]
    assert described(hyper_parameters=f"{SGD}; lr=0.1") == [
        f"{head}lr absent -> 0.1 (param_groups[1])"
    ]
    assert f"{head}betas absent -> (0.9, 0.999)" in described(hyper_parameters=ADAM)
    (line,) = described(hyper_parameters=f"{SGD}; ")  # a group without any
    assert line.startswith("program, hyper-parameters: ")


def test_long_texts_are_shown_from_where_they_differ() -> None:
    planned = replace(MANIFEST.program, arguments={"layers": "64," * 60 + "3", "data": "x"})
    found = list(
        program_deviations(
            planned,
            arguments={"layers": "64," * 60 + "5", "data": "x"},
            description=planned.description,
            code=planned.code,
        )
    )
    (line,) = found
    assert line.endswith("64,3 was planned, ...4,64,64,64,64,64,64,5 was run")
    assert len(line) < 100
