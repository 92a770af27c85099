from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.errors import UnknownPerturbation
from auditkit.records.declaration import (
    DECLARATIONS,
    Declaration,
    declaration_of,
    matches,
)
from auditkit.records.parameter import Parameter
from auditkit.records.plan import PerturbationSpec

WHOLE = Parameter(default=1, minimum=1)
CHOICE = Parameter(default="m", choices=("m", "v"))
TEXT = Parameter(default="", text=True)
PART = Parameter(default="0.2", part=True)


@pytest.mark.parametrize(
    ("parameter", "good", "bad", "allowed"),
    [
        (WHOLE, [1, 2, 2**70], [0, -1, True, "1", "", 1.0, None], "a whole number of at least 1"),
        (CHOICE, ["m", "v"], ["", "mv", 0, None], "m or v"),
        (
            PART,
            ["0.2", "0.000001", "0.50", 1],
            ["0.0", "0", "1.5", ".5", "1e-3", "0.", "-0.2", "x", 2, 0, None],
            "a number above 0 and at most 1, as 0.2",
        ),
        (TEXT, ["", "any", "1"], [1, True, None], "a name"),
    ],
)
def test_a_parameter_accepts_what_it_allows(
    parameter: Parameter, good: list[object], bad: list[object], allowed: str
) -> None:
    assert [v for v in good if not parameter.accepts(v)] == []  # type: ignore[arg-type]
    assert [v for v in bad if parameter.accepts(v)] == []  # type: ignore[arg-type]
    assert parameter.allowed == allowed


@pytest.mark.parametrize("name", sorted(DECLARATIONS))
def test_a_declaration_is_complete(name: str) -> None:
    declaration = DECLARATIONS[name]
    assert declaration_of(name) is declaration
    assert declaration.name == name
    assert declaration.version >= 1
    assert declaration.summary
    assert declaration.source
    assert all(p.accepts(p.default) for p in declaration.parameters.values())
    touched = declaration.may_touch(PerturbationSpec(name))
    assert bool(touched) == (declaration.kind == "state")


@pytest.mark.parametrize("name", sorted(DECLARATIONS))
def test_defaults_are_filled_in_once(name: str) -> None:
    declaration = DECLARATIONS[name]
    full = declaration.resolve(PerturbationSpec(name))
    implied = {key for key, parameter in declaration.parameters.items() if parameter.optional}
    assert set(full.parameters) == set(declaration.parameters) - implied
    assert declaration.resolve(full) == full


def test_an_implied_value_is_left_out_and_another_kept() -> None:
    swap = DECLARATIONS["order-swap"]
    given = {unit: PerturbationSpec("order-swap", {"unit": unit}) for unit in ("sample", "batch")}
    assert swap.resolve(given["sample"]).branch_name == "order-swap"
    assert swap.resolve(given["batch"]).branch_name == "order-swap--unit-batch"


def test_given_parameters_stay() -> None:
    spec = PerturbationSpec("adam-reset", {"moments": "v"})
    full = DECLARATIONS["adam-reset"].resolve(spec)
    assert full.parameters == {"moments": "v", "step": "reset"}
    assert spec.parameters == {"moments": "v"}


def test_unknown_names_parameters_and_values_are_refused() -> None:
    with pytest.raises(UnknownPerturbation, match=r"unknown perturbation 'adam'.*adam-reset"):
        declaration_of("adam")
    for typed, meant in (("momentum_reset", "momentum-reset"), ("order-revers", "order-reverse")):
        with pytest.raises(UnknownPerturbation) as caught:
            declaration_of(typed)
        assert caught.value.hint == f"did you mean {meant}?"
    with pytest.raises(UnknownPerturbation) as caught:
        declaration_of("qqqq")
    assert caught.value.hint is None
    with pytest.raises(UnknownPerturbation, match=r"no parameter 'moment' \(expected moments, p"):
        DECLARATIONS["adam-reset"].resolve(PerturbationSpec("adam-reset", {"moment": "m"}))
    with pytest.raises(UnknownPerturbation, match=r"moments=x is not allowed \(expected m or v or"):
        DECLARATIONS["adam-reset"].resolve(PerturbationSpec("adam-reset", {"moments": "x"}))
    with pytest.raises(UnknownPerturbation, match=r"'x' \(expected no parameter"):
        DECLARATIONS["carry"].touches(PerturbationSpec("carry", {"x": 1}))


def test_adam_touches_what_its_parameters_say() -> None:
    declaration = DECLARATIONS["adam-reset"].of_version(1)
    slots = {"m": {"exp_avg"}, "v": {"exp_avg_sq"}, "mv": {"exp_avg", "exp_avg_sq"}}
    for moments, step in itertools.product(slots, ("keep", "reset")):
        spec = PerturbationSpec("adam-reset", {"moments": moments, "step": step})
        wanted = slots[moments] | ({"step"} if step == "reset" else set())
        assert set(declaration.touches(spec)) == {f"optimizer/{slot}" for slot in wanted}


def test_adam_may_touch_what_counts_and_what_belongs_to_its_moments() -> None:
    declaration = DECLARATIONS["adam-reset"]
    allowed = {
        (moments, step): declaration.may_touch(
            PerturbationSpec("adam-reset", {"moments": moments, "step": step})
        )
        for moments, step in itertools.product(("m", "v", "mv"), ("keep", "reset"))
    }
    assert allowed["m", "keep"] == ("optimizer/exp_avg",)
    assert allowed["v", "keep"] == ("optimizer/exp_avg_sq", "optimizer/max_exp_avg_sq")
    assert not matches("optimizer/exp_avg_sq", allowed["m", "reset"])
    assert not matches("param_groups", allowed["mv", "keep"])
    for component in ("optimizer/mu_product", "param_groups", "attributes/optimizer"):
        assert matches(component, allowed["m", "reset"])
    assert matches("optimizer/exp_avg_diff", allowed["mv", "reset"])
    whole = PerturbationSpec("adam-reset", {"moments": "mv", "step": "reset"})
    assert not matches("optimizer/exp_avg_diff", declaration.may_set(whole))  # only cleared
    assert matches("optimizer/exp_avg", declaration.may_set(whole))
    assert not matches("optimizer/exp_avg_diff", allowed["mv", "keep"])
    assert not matches("params", allowed["mv", "reset"])


def test_versions_are_told_apart() -> None:
    declaration = DECLARATIONS["optimizer-reset"]
    assert declaration.of_version(2) is declaration
    assert declaration.of_version(1).touches(PerturbationSpec("optimizer-reset")) == (
        "optimizer/*",
    )
    with pytest.raises(UnknownPerturbation, match=r"version 3 .* has 2 or 1"):
        declaration.of_version(3)


def test_a_declaration_touches_nothing_by_default() -> None:
    assert Declaration("x", 1, "none", "", "").touches(PerturbationSpec("x")) == ()


@pytest.mark.parametrize(
    ("component", "patterns", "expected"),
    [
        ("params", ("params",), True),
        ("optimizer/exp_avg", ("optimizer/*",), True),
        ("optimizer/exp_avg_sq", ("optimizer/exp_avg",), False),
        ("Params", ("params",), False),
        ("params", (), False),
        ("rng/torch", ("params", "rng/*"), True),
    ],
)
def test_patterns_match_whole_names(
    component: str, patterns: tuple[str, ...], expected: bool
) -> None:
    assert matches(component, patterns) is expected


@given(
    st.dictionaries(st.sampled_from(["moments", "step", "x"]), st.text(max_size=3) | st.integers())
)
def test_resolving_anything_gives_allowed_parameters_or_refuses(
    parameters: dict[str, str | int],
) -> None:
    declaration = DECLARATIONS["adam-reset"]
    try:
        full = declaration.resolve(PerturbationSpec("adam-reset", parameters))
    except UnknownPerturbation:
        return
    assert all(declaration.parameters[key].accepts(v) for key, v in full.parameters.items())


def test_a_decimal_has_one_spelling() -> None:
    factor = Parameter(default="0.5", decimal=True)
    good: list[Any] = [0, 2, "0.5", "0.25", "10.0625", "2"]
    bad: list[Any] = ["0.50", ".5", "05", "1e-3", "-1", -1, "nan", "", "1.", True, "1.0"]
    assert [value for value in good if not factor.accepts(value)] == []
    assert [value for value in bad if factor.accepts(value)] == []
    assert factor.allowed == "a number of 0 or more, as 2 or 0.5"
