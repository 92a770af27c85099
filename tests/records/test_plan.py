from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from auditkit.cli.options import parse_seeds
from auditkit.errors import PlanError
from auditkit.formats import canonical
from auditkit.records.plan import (
    DISTANCE_METRICS,
    RANGES,
    SIGNED_METRICS,
    ParameterValue,
    PerturbationSpec,
    StudyPlan,
)
from auditkit.records.plan_values import spelled_seeds
from auditkit.statistics.metrics import DISTANCES, SIGNED

words = st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True)
values: st.SearchStrategy[ParameterValue] = st.integers(-(10**9), 10**9) | words
specs = st.builds(PerturbationSpec, words, st.dictionaries(words, values, max_size=3))


def plan(**changes: Any) -> StudyPlan:
    given: dict[str, Any] = {
        "fork_at": 3,
        "window": 2,
        "horizon": 9,
        "seeds": range(2),
        "perturbations": ["carry"],
    }
    return StudyPlan(**{**given, **changes})


class Unprintable:
    """Something whose own repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_the_defaults_are_those_of_the_design() -> None:
    made = plan()
    assert made.seeds == (0, 1)
    assert made.perturbations == (PerturbationSpec("carry"),)
    assert (made.placebos, made.placebo_scale, made.threads) == (3, 1, 1)
    assert (made.primary_metric, made.margins) == ("tv", {})
    assert made.augmentation_rng == "per-sample"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fork_at": 0}, "fork_at must be a whole number of 1 to 1000000000, not 0"),
        ({"fork_at": -1}, "fork_at must be"),
        ({"fork_at": 2.0}, "fork_at must be a whole number of 1 to 1000000000, not 2.0"),
        ({"fork_at": "3"}, "fork_at must be"),
        ({"fork_at": True}, "fork_at must be"),
        ({"window": 0}, "window must be"),
        ({"horizon": None}, "horizon must be"),
        ({"threads": 0}, "threads must be"),
        ({"placebos": 0}, "placebos must be"),
        ({"placebo_scale": 0}, "placebo_scale must be"),
        ({"horizon": 4}, "the window ends at step 5, beyond the horizon 4"),
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [1, 2, 1]}, "a seed is given twice.*found 1"),
        ({"seeds": [-1]}, "seeds must lie in"),
        ({"seeds": [2**63]}, "seeds must lie in"),
        ({"seeds": range(10_001)}, "seeds: more than 10000, the most that a study has"),
        ({"perturbations": [f"a:x={n}" for n in range(1001)]}, "perturbations: more than 1000"),
        ({"perturbations": []}, "at least one perturbation"),
        ({"perturbations": ["carry", "carry"]}, "a perturbation is given twice .found carry"),
        ({"perturbations": ["a:x=1,y=2", "a:y=2,x=1"]}, "a perturbation is given twice"),
        ({"perturbations": [""]}, "no perturbation name"),
        ({"primary_metric": "f1"}, "unknown metric 'f1'"),
        ({"margins": {"f1": 1.0}}, "unknown metric 'f1'"),
        ({"margins": {"tv": 0.0}}, "margin must be positive"),
        ({"margins": {"tv": -1.0}}, "margin must be positive"),
        ({"margins": {"tv": float("nan")}}, "margin must be positive"),
        (
            {"margins": {"tv": 1.0}},
            "margin of 1.0 for tv cannot fail: values of tv lie within 1 of",
        ),
        (
            {"margins": {"js": 0.1, "nll": 1e9}},
            r"margin of 1000000000.0 for nll .* lie within 27\.631 of",
        ),
        ({"margins": {"brier": float("inf")}}, "margin of inf for brier .* lie within 2 of"),
        ({"augmentation_rng": "global"}, "unknown augmentation_rng 'global'"),
        ({"evidence_digest": "sha256/tensor-v1"}, "unknown evidence_digest 'sha256/tensor-v1'"),
        ({"evidence_digest": 1}, "evidence_digest"),
        ({"evidence_every": 0}, "evidence_every must be"),
        ({"evidence_every": 10**9 + 1}, "evidence_every must be"),
        ({"evidence_every": 2.0}, "evidence_every must be"),
        ({"probe_at": [3]}, r"probe_at: step 3 is no further step .*after t0 = 3 and before T = 9"),
        ({"probe_at": [4, 9]}, "probe_at: step 9 is no further step"),
        ({"probe_at": [-4]}, "probe_at: step -4 is no further step"),
        ({"probe_at": [5]}, r"probe_at: step 5 is no further step .*other than t0\+W = 5"),
        ({"probe_at": [6, 4]}, "probe_at: step 4 stands after 6"),
        ({"probe_at": [4, 4]}, "probe_at: step 4 stands after 4 .*ascending steps, each once"),
        ({"horizon": 999, "probe_at": range(10, 111)}, "probe_at: more than 100, the most"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says) as caught:
        plan(**change)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seeds": [1.5]}, "seeds must be whole numbers, not 1.5"),
        ({"seeds": [1.0]}, "seeds must be whole numbers, not 1.0"),
        ({"seeds": ["1"]}, "seeds must be whole numbers, not '1'"),
        ({"seeds": [None]}, "seeds must be whole numbers, not None"),
        ({"seeds": [True, 2]}, "seeds must be whole numbers, not True"),
        ({"seeds": np.array([True])}, "seeds must be whole numbers, not "),
        ({"seeds": [np.float64(2)]}, "seeds must be whole numbers, not "),
        ({"seeds": [10**5000]}, "seeds must lie in"),
        ({"seeds": "01"}, "seeds must be a list or a range, not '01'"),
        ({"seeds": b"01"}, "seeds must be a list or a range, not b'01'"),
        ({"seeds": {0: 1}}, "seeds must be a list or a range, not {0: 1}"),
        ({"seeds": 5}, "seeds must be a list or a range, not 5"),
        ({"seeds": np.array(5)}, "seeds must be a list or a range, not "),
        ({"seeds": None}, "seeds must be a list or a range, not None"),
        ({"seeds": itertools.count()}, "seeds: more than 10000"),
        ({"perturbations": [None]}, "perturbations: None is no perturbation"),
        ({"causal_break": 5}, "causal_break: 5 is no perturbation"),
        ({"seeds": [Unprintable()]}, "seeds must be whole numbers, not an object of class Unprint"),
        ({"perturbations": [b"carry"]}, "perturbations: b'carry' is no perturbation"),
        ({"perturbations": "carry"}, "perturbations must be a list or a range, not 'carry'"),
        ({"perturbations": 1}, "perturbations must be a list or a range, not 1"),
        ({"fork_at": np.bool_(True)}, "fork_at must be a whole number"),
        ({"horizon": 10**5000}, "horizon must be .*, not a number of thousands of digits"),
        ({"primary_metric": ["tv"]}, r"primary_metric must be a text, not \['tv'\]"),
        ({"primary_metric": None}, "primary_metric must be a text, not None"),
        ({"augmentation_rng": True}, "augmentation_rng must be a text, not True"),
        ({"probe_at": 4}, "probe_at must be a list or a range, not 4"),
        ({"probe_at": "4"}, "probe_at must be a list or a range, not '4'"),
        ({"probe_at": None}, "probe_at must be a list or a range, not None"),
        ({"probe_at": [4.0]}, "probe_at must be whole numbers, not 4.0"),
        ({"probe_at": [True]}, "probe_at must be whole numbers, not True"),
        ({"probe_at": itertools.count(4)}, "probe_at: more than 100"),
        ({"probe_at": [10**5000]}, "probe_at: step a number of thousands of digits is no"),
        ({"margins": {"tv": "0.1"}}, "margins: tv must be a number, not '0.1'"),
        ({"margins": {"tv": True}}, "margins: tv must be a number, not True"),
        ({"margins": {"tv": None}}, "margins: tv must be a number, not None"),
        ({"margins": {"tv": 10**5000}}, "margins: a margin of a number of thousands"),
        ({"margins": {1: 0.1}}, "margins: a name must be a text, not 1"),
        ({"margins": [("tv", 0.1)]}, "margins: values by name must be a dict"),
        ({"margins": ""}, "margins: values by name must be a dict, not ''"),
        ({"placebo_scale": np.zeros(2)}, "placebo_scale must be a whole number"),
        ({"primary": "tv"}, r"a plan has no 'primary'; did you mean primary_metric\?"),
        ({"x": 1}, "a plan has no 'x'"),
    ],
)
def test_a_value_is_not_taken_for_another(change: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says) as caught:
        plan(**change)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        (None, {}, "perturbations: a name must be a text, not None"),
        ("", {}, "perturbations: a name is empty"),
        (b"carry", {}, "perturbations: a name must be a text, not b'carry'"),
        ("ulp", {"scale": 1.5}, "perturbations: ulp: scale must be a text or a whole number, not"),
        ("ulp", {"scale": True}, "perturbations: ulp: scale must be a text or a whole number, not"),
        ("ulp", {1: 1}, "perturbations: ulp: a name must be a text, not 1"),
        ("ulp", [("scale", 1)], "perturbations: ulp: values by name must be a dict, not"),
        ("ulp", None, "perturbations: ulp: values by name must be a dict, not None"),
    ],
)
def test_a_perturbation_takes_texts_and_whole_numbers(
    name: Any, parameters: Any, says: str
) -> None:
    with pytest.raises(PlanError, match=says):
        PerturbationSpec(name, parameters)


def test_numbers_of_numpy_become_those_of_python() -> None:
    numpys: Any = {"scale": np.int64(2)}
    made = plan(
        fork_at=np.int32(3),
        seeds=np.arange(2),
        margins={"tv": np.float64(0.1), "nll": np.int64(2)},
        perturbations=[PerturbationSpec("ulp", numpys)],
    )
    assert made == plan(margins={"tv": 0.1, "nll": 2}, perturbations=["ulp:scale=2"])
    numbers: list[Any] = [made.fork_at, *made.seeds, *made.margins.values()]
    numbers += [made.perturbations[0].parameters["scale"]]
    assert [type(number) for number in numbers] == [int, int, int, float, int, int]
    assert plan(seeds=(seed for seed in [3, 1])).seeds == (3, 1)


def test_the_edges_are_allowed() -> None:
    made = plan(fork_at=1, window=1, horizon=2, seeds=[2**63 - 1, 0])
    assert made.times == {"t0+W": 2, "T": 2}
    for metric in (*SIGNED_METRICS, *DISTANCE_METRICS):
        assert plan(primary_metric=metric, margins={metric: 1e-9}).primary_metric == metric
    assert plan(margins={"mse": 1e9}).margins == {"mse": 1e9}  # there is no most
    with pytest.raises(PlanError, match="for cka_distance cannot fail"):
        plan(margins={"cka_distance": 1.0})


@pytest.mark.parametrize("metric", [*SIGNED, *DISTANCES])
def test_a_margin_is_smaller_than_what_any_two_values_can_differ_by(metric: str) -> None:
    # The extremes are reached: the ranges are those of the metrics, not looser ones.
    sure, wrong = np.array([[1.0, 0.0]] * 2), np.array([[0.0, 1.0]] * 2)
    even = np.array([[0.5, 0.5]] * 2)
    if metric in SIGNED:
        values = [SIGNED[metric](table, np.array([0, 0])) for table in (sure, wrong)]
        values.append(SIGNED[metric](even, np.array([0, 1])))
    else:
        values = [DISTANCES[metric](sure, table) for table in (sure, wrong)]
    widest = max(values) - min(values)
    assert RANGES[metric] == pytest.approx(widest, rel=1e-4)
    assert plan(margins={metric: 0.99 * widest}).margins[metric] < widest
    with pytest.raises(PlanError, match=f"for {metric} cannot fail"):
        plan(margins={metric: 1.01 * widest})


def test_an_iterator_is_used_once_and_margins_are_copied() -> None:
    margins = {"tv": 0.1}
    made = plan(seeds=iter([4, 5]), perturbations=iter(["carry"]), margins=margins)
    margins["tv"] = 9.0
    assert (made.seeds, made.margins) == ((4, 5), {"tv": 0.1})


def test_branches_have_a_name_a_role_and_a_perturbation() -> None:
    made = plan(perturbations=["adam-reset:step=keep,moments=m"], placebos=2, placebo_scale=4)
    treatment = "adam-reset--moments-m--step-keep"
    assert made.branch_names == ("control", "replica", "placebo-0", "placebo-1", treatment)
    assert made.branch("control") == ("control", None)
    assert made.branch("replica") == ("replica", None)
    placebo = PerturbationSpec("ulp", {"scale": 4, "draw": 1})
    assert made.branch("placebo-1") == ("placebo", placebo)
    assert made.branch(treatment) == ("treatment", made.perturbations[0])
    for unknown in ("", "placebo-2", "adam-reset"):
        with pytest.raises(PlanError, match="no branch"):
            made.branch(unknown)


def test_other_perturbations_leave_the_rest_of_the_plan() -> None:
    made = plan(placebos=7, margins={"tv": 0.1}, threads=2)
    other = made.with_perturbations([PerturbationSpec("ulp")])
    assert other.perturbations == (PerturbationSpec("ulp"),)
    assert other.with_perturbations(made.perturbations) == made
    assert other != made


@pytest.mark.parametrize(
    ("text", "name", "parameters"),
    [
        ("carry", "carry", {}),
        (" carry ", "carry", {}),
        ("carry:", "carry", {}),
        ("adam-reset:moments=mv,step=keep", "adam-reset", {"moments": "mv", "step": "keep"}),
        ("a: x = 1 , y = b ", "a", {"x": 1, "y": "b"}),
        ("a:x=-3", "a", {"x": -3}),
        ("a:x=1.5", "a", {"x": "1.5"}),
        ("a:x=b=c", "a", {"x": "b=c"}),
        ("a:x=b:c", "a", {"x": "b:c"}),
        ("a:x=1,,", "a", {"x": 1}),
    ],
)
def test_a_perturbation_is_read_from_text(
    text: str, name: str, parameters: dict[str, ParameterValue]
) -> None:
    assert PerturbationSpec.parse(text) == PerturbationSpec(name, parameters)


@pytest.mark.parametrize("text", ["", " ", ":x=1", "a:x", "a:x=", "a:=1", "a:x=1,x=2", "a:x=1,y"])
def test_text_that_is_no_perturbation_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        PerturbationSpec.parse(text)


@given(specs)
def test_what_is_written_is_read(spec: PerturbationSpec) -> None:
    parameters = ",".join(f"{key}={value}" for key, value in spec.parameters.items())
    assert PerturbationSpec.parse(f"{spec.name}:{parameters}") == spec
    if not parameters:
        assert PerturbationSpec.parse(spec.name) == spec


@given(st.text(max_size=30))
def test_any_text_is_a_perturbation_or_a_plan_error(text: str) -> None:
    try:
        spec = PerturbationSpec.parse(text)
    except PlanError:
        return
    assert spec.name
    assert spec.name == spec.name.strip()
    assert all(key and value != "" for key, value in spec.parameters.items())


@given(st.text(alphabet="-+0123456789\u0663\u00b2_", min_size=1, max_size=6))
@example("--0")
@example("9" * 5000)  # more digits than int() takes
def test_any_number_like_value_is_read_or_refused(text: str) -> None:
    try:
        value = PerturbationSpec.parse(f"a:x={text}").parameters["x"]
    except PlanError:
        return
    assert value == text or value == int(text)


@given(specs, specs)
def test_equal_branch_names_mean_equal_parameters_in_any_order(
    left: PerturbationSpec, right: PerturbationSpec
) -> None:
    turned = PerturbationSpec(left.name, dict(reversed(left.parameters.items())))
    assert turned == left
    assert turned.branch_name == left.branch_name
    if left == right:
        assert left.branch_name == right.branch_name


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ((3,), "3"),
        ((0, 1, 2, 3), "0-3"),
        ((0, 1, 3, 2), "0-1, 3, 2"),
        ((5, 7, 8, 9, 20), "5, 7-9, 20"),
    ],
)
def test_seeds_are_spelled_as_they_are_typed(seeds: tuple[int, ...], text: str) -> None:
    assert spelled_seeds(seeds) == text
    assert parse_seeds(text) == seeds


def test_further_steps_have_names_and_are_no_times_of_a_test() -> None:
    made = plan(probe_at=np.array([4, 8]))
    assert made.probe_at == (4, 8)
    assert list(made.probed.items()) == [("t0+1", 4), ("t0+W", 5), ("t0+5", 8), ("T", 9)]
    assert made.times == plan().times == plan().probed == {"t0+W": 5, "T": 9}
    assert list(plan(window=6).probed) == ["t0+W", "T"]
    assert made.changed(seeds=[7]).probe_at == made.probe_at
    assert len(plan(horizon=999, probe_at=range(10, 110)).probed) == 102


def test_the_state_is_in_every_kth_row_and_in_those_of_the_times() -> None:
    made = plan(fork_at=10, window=3, horizon=40, probe_at=[22], evidence_every=8)
    stated = [step for step in range(1, 42) if made.has_state(step)]
    assert stated == [1, 9, 11, 13, 14, 17, 22, 23, 25, 33, 40, 41]
    assert "every 8 steps" in made.evidence_note
    whole = made.changed(evidence_every=1)
    assert all(map(whole.has_state, range(1, 42)))
    assert not whole.evidence_note
    assert whole.changed(evidence_digest="int64-mix/1").evidence_note.endswith("by int64-mix/1")
    assert b"evidence_digest" not in canonical.encode(made)
    assert b"evidence_every" in canonical.encode(made)
    assert b"evidence_every" not in canonical.encode(whole)
