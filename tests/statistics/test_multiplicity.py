from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from auditkit.records.estimate import EFFECT, EQUIVALENT, INCONCLUSIVE, NEGLIGIBLE
from auditkit.statistics import multiplicity

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@pytest.fixture(scope="module", autouse=True)
def _no_collection() -> Iterator[None]:
    """Statsmodels asks for a whole collection a call, of all that other tests have left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)
        yield


@settings(deadline=None, max_examples=30)
@given(p_values)
def test_corrections_agree_with_statsmodels(values: list[float]) -> None:
    assert multiplicity.holm(values) == pytest.approx(multipletests(values, method="holm")[1])
    assert multiplicity.benjamini_hochberg(values) == pytest.approx(
        multipletests(values, method="fdr_bh")[1]
    )


def test_corrections_of_nothing() -> None:
    assert multiplicity.holm([]) == ()
    assert multiplicity.benjamini_hochberg([]) == ()


@pytest.mark.parametrize(
    ("m", "placebos", "n"), [(1, 3, 3), (10, 3, 4), (20, 3, 5), (100, 3, 6), (5, 9, 2)]
)
def test_seeds_needed(m: int, placebos: int, n: int) -> None:
    assert multiplicity.seeds_needed(m, placebos, 0.05) == n
    assert m * (placebos + 1.0) ** -n <= 0.05 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("p", "margin_p", "expected"),
    [
        (0.05, None, EFFECT),
        (0.01, 0.2, EFFECT),
        (0.01, 0.01, NEGLIGIBLE),
        (0.2, 0.05, EQUIVALENT),
        (None, 0.01, EQUIVALENT),
        (0.9, None, INCONCLUSIVE),
        (0.9, 0.2, INCONCLUSIVE),
        (None, None, INCONCLUSIVE),
    ],
)
def test_verdicts(p: float | None, margin_p: float | None, expected: str) -> None:
    assert multiplicity.verdict(p, margin_p, 0.05) == expected
