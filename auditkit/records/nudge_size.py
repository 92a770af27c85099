"""The size of a placebo's nudge in words: units in the last place say little to a reader."""

from __future__ import annotations

import math

#: Spacing of float32 numbers, as a share of the number, at most.
_SPACING = 2.0**-23

#: From this share of a weight on, a placebo is more than rounding noise.
_NOTABLE = 0.001


def largest_share(scale: int) -> float:
    """How far a nudge moves a float32 weight at most, as a share of the weight."""
    return scale * _SPACING


def spelled_scale(scale: int) -> str:
    """A scale as people read it: ``65,536 ulp, up to 0.78 % of a float32 weight``."""
    percent = 100 * largest_share(scale)
    if percent > 100:
        share = "more than the whole"
    else:
        digits = max(1 - math.floor(math.log10(percent)), 1)
        share = f"up to {f'{percent:.{digits}f}'.removesuffix('.0')} %"
    return f"{scale:,} ulp, {share} of a float32 weight"


def large_nudge(scale: int) -> str | None:
    """What has to be said of a nudge that is no rounding noise any more; None of a smaller one."""
    if largest_share(scale) <= _NOTABLE:
        return None
    return (
        f"a placebo moves weights by {spelled_scale(scale)}: that is more than rounding noise, and "
        "the floor is what such a change does; a smaller scale and a later T make it one of noise"
    )
