from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from synthetic_outcomes import KEYS, NAME, diverged, plan_of, study_of

from auditkit.records.estimate import EstimateTable
from auditkit.records.further_estimates import ProfileRow
from auditkit.statistics import metrics
from auditkit.statistics.estimands import estimate
from auditkit.statistics.outcomes import BranchTables, SeedOutcomes
from auditkit.statistics.profiles import QUARTERS, profiles
from auditkit.statistics.resampling import within_seed_permutation_test


def row(result: EstimateTable, part: str, metric: str, time: str = "T") -> ProfileRow:
    (found,) = [r for r in result.profiles if (r.part, r.metric, r.time) == (part, metric, time)]
    return found


def test_a_class_by_brute_force() -> None:
    outcomes = study_of(5)
    result = estimate(outcomes, plan_of(5))
    differences, treated, floors = [], [], []
    for outcome in outcomes:
        mine = outcome.labels == 2
        labels, control = outcome.labels[mine], outcome.control.tables["T"][mine]
        branch = outcome.treatments[NAME].tables["T"][mine]
        differences.append(metrics.accuracy(branch, labels) - metrics.accuracy(control, labels))
        treated.append(metrics.tv(control, branch))
        floors.append([metrics.tv(control, p.tables["T"][mine]) for p in outcome.placebos])
    right, far = row(result, "class 2", "accuracy"), row(result, "class 2", "tv")
    assert right.effect == pytest.approx(np.mean(differences), abs=1e-9)
    assert right.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=1e-9)
    assert (right.n, right.n_examples) == (5, 12)
    assert far.effect == pytest.approx(np.mean(treated) - np.mean(floors), abs=1e-9)
    assert far.p == within_seed_permutation_test(treated, floors).p
    assert far.interval is not None


def test_quarters_are_by_the_controls_own_margin_before_the_fork() -> None:
    outcomes = study_of(3)
    result = estimate(outcomes, plan_of(3))
    differences = []
    for outcome in outcomes:
        top = np.sort(outcome.control.tables["t0"].astype(np.float64), axis=1)
        mine = np.argsort(top[:, -1] - top[:, -2], kind="stable")[:12]
        labels = outcome.labels[mine]
        treated, control = (
            metrics.accuracy(b.tables["T"][mine], labels)
            for b in (outcome.treatments[NAME], outcome.control)
        )
        differences.append(treated - control)
    least = row(result, "margin 1/4", "accuracy")
    assert least.effect == pytest.approx(np.mean(differences), abs=1e-9)
    # noise flips those that were nearly undecided
    assert row(result, "margin 1/4", "tv").effect > row(result, "margin 4/4", "tv").effect


def test_parts_make_up_the_whole() -> None:
    result = estimate(study_of(4), plan_of(4))
    whole = next(r for r in result.distances if (r.metric, r.time) == ("tv", "T"))
    for parts in ([f"class {n}" for n in range(4)], [f"margin {n}/4" for n in range(1, 5)]):
        effects = [row(result, part, "tv").effect for part in parts]
        assert np.mean(effects) == pytest.approx(whole.excess, abs=1e-9)


def test_all_rows_are_corrected_as_one() -> None:
    rows = estimate(study_of(4), plan_of(4)).profiles
    assert len(rows) == 2 * 2 * (4 + QUARTERS)
    expected = multipletests([1.0 if r.p is None else r.p for r in rows], method="fdr_bh")[1]
    for each, q in zip(rows, expected, strict=True):
        assert each.adjusted_p == (None if each.p is None else pytest.approx(q, abs=1e-9))


def relabelled(outcome: SeedOutcomes, label: int) -> SeedOutcomes:
    return replace(outcome, labels=np.full_like(outcome.labels, label))


def test_one_class_only_is_said() -> None:
    result = estimate([relabelled(outcome, 3) for outcome in study_of(4)], plan_of(4))
    assert {r.part for r in result.profiles} == {f"margin {n}/4" for n in range(1, 5)}
    assert any("every example of the probe has the label 3" in note for note in result.notes)


def test_many_classes_have_no_parts_and_a_note() -> None:
    outcomes = study_of(3, classes=24)
    rows, notes = profiles(outcomes, plan_of(3), 0.95)
    assert notes == ("no profile by class: 24 classes, more than 20",)
    assert {r.part for r in rows} == {f"margin {n}/4" for n in range(1, 5)}


def test_few_seeds_give_no_profile_and_what_diverged_is_left_out() -> None:
    assert profiles(study_of(2), plan_of(2), 0.95) == ((), ())
    outcomes = study_of(5)
    outcomes[0] = replace(outcomes[0], control=diverged())
    outcomes[1] = replace(outcomes[1], treatments={NAME: diverged()})
    outcomes[2] = replace(outcomes[2], placebos=(diverged(),) * 3)
    result = estimate(outcomes, plan_of(5))
    assert row(result, "class 1", "accuracy").n == 3
    far = row(result, "class 1", "tv")
    assert (far.n, far.p, far.interval) == (2, None, None)


def test_without_labels_or_a_table_at_t0_there_is_what_can_be() -> None:
    bare = [replace(outcome, labels=np.empty(0, np.int64)) for outcome in study_of(3)]
    rows, notes = profiles(bare, plan_of(3), 0.95)
    assert ({r.metric for r in rows}, notes) == ({"tv"}, ())

    def late(branch: BranchTables) -> BranchTables:
        return BranchTables({key: branch.tables[key] for key in KEYS[1:]})

    later = [replace(outcome, control=late(outcome.control)) for outcome in study_of(3)]
    assert {r.part for r in profiles(later, plan_of(3), 0.95)[0]} == {
        f"class {n}" for n in range(4)
    }


def test_equal_bits_are_not_tested() -> None:
    same = [replace(o, treatments={NAME: o.control}) for o in study_of(3)]
    rows, _ = profiles(same, plan_of(3), 0.95)
    assert {r.metric for r in rows} == {"accuracy"}
    assert {r.p for r in rows} == {None}
