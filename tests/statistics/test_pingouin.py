"""Power, t tests and equivalence beside a library that shares no code with the others."""

from __future__ import annotations

import numpy as np
import pytest

from auditkit.statistics import inference, power

pingouin = pytest.importorskip("pingouin", reason="a library of the test extra")


@pytest.mark.parametrize(("d_z", "n"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_power_agrees_with_pingouin(d_z: float, n: int) -> None:
    expected = pingouin.power_ttest(d=d_z, n=n, contrast="paired", alternative="two-sided")
    assert power.t_test_power(d_z, n) == pytest.approx(expected, abs=1e-9)
    assert power.seeds_for_t_test(d_z) == n


def test_the_t_test_and_tost_agree_with_pingouin() -> None:
    values = np.random.default_rng(5).normal(0.4, 1, 9)
    expected = pingouin.ttest(values, 0.0)
    test = inference.paired_t_test(values)
    assert test is not None
    column = next(name for name in expected.columns if name.lower().startswith("p"))
    assert test.p == pytest.approx(float(expected[column].iloc[0]), abs=1e-9)
    both = pingouin.tost(values, np.zeros(9), bound=0.7, paired=True)
    column = next(name for name in both.columns if name.lower().startswith("p"))
    assert inference.tost_p(values, 0.7) == pytest.approx(float(both[column].iloc[0]), abs=1e-9)
