"""The size of a nudge in words."""

from __future__ import annotations

import pytest

from auditkit.records.nudge_size import large_nudge, spelled_scale


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (1, "1 ulp, up to 0.000012 %"),
        (4096, "4,096 ulp, up to 0.049 %"),
        (65_536, "65,536 ulp, up to 0.78 %"),
        (2**20, "1,048,576 ulp, up to 12.5 %"),
        (2**23, "8,388,608 ulp, up to 100 %"),
        (2**31, "2,147,483,648 ulp, more than the whole"),
    ],
)
def test_a_scale_is_told_as_a_share_of_a_weight(scale: int, said: str) -> None:
    assert spelled_scale(scale) == f"{said} of a float32 weight"


def test_what_is_no_rounding_noise_is_warned_of() -> None:
    assert large_nudge(8_388) is None
    assert "65,536 ulp, up to 0.78 %" in (large_nudge(65_536) or "")
