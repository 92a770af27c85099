from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_examples import MANIFEST, SEED
from scipy import stats

from auditkit.replay.sampling import chance_of_catching, describe_sample, draw, shuffled


@given(st.integers(1, 30), st.data())
def test_the_odds_are_those_of_a_simple_random_sample(n_all: int, data: st.DataObject) -> None:
    n_drawn = data.draw(st.integers(0, n_all))
    n_bad = data.draw(st.integers(0, n_all))
    expected = stats.hypergeom(n_all, n_bad, n_drawn).sf(0)
    assert chance_of_catching(n_all, n_drawn, n_bad) == pytest.approx(expected, abs=1e-12)


def test_the_odds_are_those_of_counting() -> None:
    draws = list(itertools.combinations(range(7), 3))
    hits = sum(bool({0, 1} & set(drawn)) for drawn in draws)
    assert chance_of_catching(7, 3, 2) == pytest.approx(hits / len(draws))


def test_a_draw_holds_so_many_branches_and_no_control() -> None:
    sample = draw(MANIFEST, 1, None)
    assert sum(map(len, sample.choice.values())) == 1
    assert "control" not in {name for names in sample.choice.values() for name in names}


def test_a_seed_repeats_an_order() -> None:
    manifest = replace(MANIFEST, seeds=(SEED, replace(SEED, seed=9)))
    assert shuffled(manifest, 5) == shuffled(manifest, 5)


def test_everything_is_said_to_be_everything() -> None:
    n_all = len(shuffled(MANIFEST, 0))
    assert describe_sample(MANIFEST, n_all, None).startswith(f"all {n_all} branches")
