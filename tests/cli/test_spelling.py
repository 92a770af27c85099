"""A perturbation is spelt as it is typed, and files keep their names."""

from __future__ import annotations

import pytest

from auditkit.cli.spelling import counted, duration, spelt
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.plan import PerturbationSpec, as_typed

BRANCH = "adam-reset--moments-v--step-keep"
TYPED = "adam-reset:moments=v,step=keep"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BRANCH, TYPED),
        (f"seed 0, {BRANCH}, step 3: drift", f"seed 0, {TYPED}, step 3: drift"),
        (f"it is {BRANCH}.", f"it is {TYPED}."),
        ("order-shuffle--draw-12; carry", "order-shuffle:draw=12; carry"),
        ("momentum-scale--factor-0.25, then", "momentum-scale:factor=0.25, then"),
        ("momentum-reset--params-head.%2A: x", "momentum-reset:params=head.*: x"),
    ],
)
def test_a_branch_in_a_text_is_spelt_as_it_is_typed(text: str, expected: str) -> None:
    assert spelt(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        f"seed-0000/{BRANCH}.trace.safetensors",
        f"{BRANCH}.outcome.safetensors",
        "momentum-scale--factor-0.25.trace.safetensors",
        f"runs/{BRANCH}/manifest.json",
        f"{BRANCH}/manifest.json",
        f"my-{BRANCH}",
        "exp--lr-3",
        "python train.py --momentum-reset --step-keep 3",
        "placebo-0",
    ],
)
def test_files_folders_and_commands_keep_their_names(text: str) -> None:
    assert spelt(text) == text


@pytest.mark.parametrize("name", DECLARATIONS)
def test_every_branch_is_spelt_as_its_perturbation(name: str) -> None:
    spec = DECLARATIONS[name].resolve(PerturbationSpec(name))
    assert as_typed(spec.branch_name) == spelt(spec.branch_name) == spec.typed
    assert PerturbationSpec.parse(spec.typed) == spec


@pytest.mark.parametrize("pattern", ["*", "head.*", "[ab]?", "100%", "a/b", r"a\\b", "<x|y>"])
def test_a_pattern_makes_a_file_name_that_every_system_takes(pattern: str) -> None:
    spec = PerturbationSpec("momentum-reset", {"params": pattern})
    assert not set(spec.branch_name) & set(r'*?[]/\\:<>|"')
    assert as_typed(spec.branch_name) == spec.typed == f"momentum-reset:params={pattern}"


def test_somebody_elses_perturbation_with_any_value() -> None:
    spec = PerturbationSpec("zero-bias", {"name": "a-b", "by": -3})
    assert as_typed(spec.branch_name) == "zero-bias:by=-3,name=a-b" == spec.typed
    assert as_typed("--x-1") == "--x-1"


def test_one_is_not_many() -> None:
    assert [counted(n, "seed") for n in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]


def test_a_duration_is_in_the_unit_that_says_something() -> None:
    found = [duration(seconds) for seconds in (0.0, 0.2, 1.4, 59.4, 90, 5400)]
    assert found == ["1 second", "1 second", "1 second", "59 seconds", "1.5 minutes", "1.50 hours"]
