"""What stands behind a verdict: signs where a row's own numbers would make one expect another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from auditkit.records.estimate import (
    EQUIVALENT,
    EXACTLY_ZERO,
    INCONCLUSIVE,
    MIN_PAIRS,
    SAME,
    DistanceEstimate,
    Interval,
    SignedEstimate,
)

Row = SignedEstimate | DistanceEstimate

#: The floor has not developed; verdict and interval differ; the two tests of a difference differ.
UNDEVELOPED_SIGN, INTERVAL_SIGN, TESTS_SIGN = "*", "^", "~"

#: Rounded to three digits, p values from here to there would all look like 0.050.
_NEAR_ALPHA = (0.0475, 0.0525)

#: The smallest p of 99,999 labelings that were drawn.
_LEAST_DRAWN = 1e-5

_DRAWN = "monte-carlo"


def p_value(value: float | None) -> str:
    """A p value with three digits, near 0.05 with four; a small one with two that count."""
    if value is None:
        return "-"
    if value < 0.001:
        return f"{value:.2g}"
    low, high = _NEAR_ALPHA
    return f"{value:.4f}" if low <= value <= high else f"{value:.3f}"


def drawn_p(value: float | None, kind: str | None) -> str:
    """A p value by labelings; one that is the smallest of those that can be drawn is a bound."""
    if value is not None and kind == _DRAWN and value <= _LEAST_DRAWN * 1.000001:
        return f"<= {p_value(value)}"
    return p_value(value)


def few_pairs_notes(rows: Iterable[Row]) -> list[str]:
    """A line where rows have so few seeds that nothing is tested, else none."""
    if not any(row.verdict == INCONCLUSIVE and row.n < MIN_PAIRS for row in rows):
        return []
    return [
        f"- for p: with fewer than {MIN_PAIRS} seeds nothing is tested: inconclusive, whatever the "
        "numbers"
    ]


def verdict_of(row: Row, *, is_undeveloped: bool = False) -> str:
    """The verdict for people, with its signs."""
    signs = (
        (UNDEVELOPED_SIGN, is_undeveloped),
        (INTERVAL_SIGN, is_beside_another_interval(row)),
        (TESTS_SIGN, do_tests_differ(row)),
    )
    return " ".join([said(row), *(sign for sign, is_there in signs if is_there)])


def said(row: Row) -> str:
    """The verdict in words; in reports of earlier builds a difference of 0 was inconclusive."""
    is_0 = isinstance(row, SignedEstimate) and bool(row.per_seed) and not any(row.per_seed)
    return SAME if is_0 and row.verdict == INCONCLUSIVE else row.verdict


def is_beside_another_interval(row: Row) -> bool:
    """Whether the interval, by itself, would make one expect another verdict."""
    if row.interval is None or row.verdict == EXACTLY_ZERO:
        return False
    is_apart, is_difference = excludes_0(row.interval), isinstance(row, SignedEstimate)
    if row.verdict == INCONCLUSIVE:  # a distance's interval does not stand beside its verdict
        return is_difference and is_apart
    return is_apart if row.verdict == EQUIVALENT else not (is_difference or is_apart)


def do_tests_differ(row: Row) -> bool:
    """Whether of t test and sign-flip test one is significant by itself and the other is not."""
    return any(note.startswith("t test and sign-flip test disagree") for note in row.notes)


def effect_notes(rows: Sequence[SignedEstimate]) -> Iterator[str]:
    """What the signs of a table of differences mean."""
    marked = [row for row in rows if is_beside_another_interval(row)]
    if any(row.verdict == INCONCLUSIVE for row in marked):
        yield (
            "^ the interval is of this row alone, and without 0; the verdict follows the adjusted p"
        )
    yield from _of_equivalent(marked)
    if any(map(do_tests_differ, rows)):
        yield (
            "~ t test and sign-flip test disagree at 0.05: the verdict is the t test's, which "
            "takes the differences for normal; a larger study tells"
        )


def distance_notes(rows: Sequence[DistanceEstimate]) -> Iterator[str]:
    """What the sign of a table of distances means that stands for its interval."""
    marked = [row for row in rows if is_beside_another_interval(row)]
    if any(row.verdict != EQUIVALENT for row in marked):
        yield (
            "^ the permutation asks about these seeds; the interval, of the mean over seeds, holds "
            "0: another study may find less"
        )
    yield from _of_equivalent(marked)


def _of_equivalent(marked: Sequence[Row]) -> Iterator[str]:
    if any(row.verdict == EQUIVALENT for row in marked):
        yield (
            "^ equivalent: shown to be inside the margin; the interval of this row alone does not "
            "hold 0: a difference that small can be there"
        )


def excludes_0(bounds: Interval | None) -> bool:
    """Whether there is an interval, and 0 is not in it."""
    if bounds is None:
        return False
    is_above = bounds.low is not None and bounds.low > 0
    return is_above or (bounds.high is not None and bounds.high < 0)
