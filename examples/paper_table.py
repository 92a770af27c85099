"""The table of a paper, from the report of ``auditkit verify`` and nothing else.

    auditkit verify runs/digits                      # leaves runs/digits/report.json
    python examples/paper_table.py runs/digits/report.json

prints LaTeX rows: every perturbation's excess over the placebo floor and its effect on accuracy, at
the horizon, with 95 % intervals and adjusted p values.
"""

from __future__ import annotations

import sys

import auditkit as ak
from auditkit.types import DistanceEstimate, Interval, SignedEstimate

DISTANCE, OUTCOME, TIME = "tv", "accuracy", "T"


def main(path: str) -> None:
    report = ak.load_report(path)
    table = report.estimates
    if table is None:
        sys.exit(f"{path}: the estimates are withheld, its verdict is {report.verdict}")
    print(f"% {report.verdict}: {report.replay}; manifest {report.manifest_sha256[:16]}")
    print(f"% {table.n_seeds} seeds, {table.placebos} placebos each, T = step {table.times['T']}")
    for distance in table.distances:
        if (distance.metric, distance.variant, distance.time) == (DISTANCE, "as-is", TIME):
            signed = next((row for row in table.signed if is_same_branch(row, distance)), None)
            print(" & ".join(cells(distance, signed)), r"\\")


def is_same_branch(signed: SignedEstimate, distance: DistanceEstimate) -> bool:
    """Whether two estimates are of one perturbation, at one time, of the outcomes as they are."""
    wanted = (distance.perturbation, OUTCOME, distance.variant, distance.time)
    return (signed.perturbation, signed.metric, signed.variant, signed.time) == wanted


def cells(distance: DistanceEstimate, signed: SignedEstimate | None) -> list[str]:
    """The cells of one row: excess, its p, effect, its p."""
    return [
        distance.perturbation.replace("--", " "),
        estimate(distance.excess, distance.interval, distance.exactly_zero),
        number(distance.adjusted_p),
        "--" if signed is None else estimate(signed.ate, signed.interval, signed.exactly_zero),
        number(None if signed is None else signed.adjusted_p),
    ]


def estimate(value: float | None, interval: Interval | None, exactly_zero: bool) -> str:
    """An estimate with its interval, where it has one."""
    if exactly_zero:
        return "0 (bit-identical)"
    if interval is None:
        return number(value)
    return f"{number(value)} [{number(interval.low)}, {number(interval.high)}]"


def number(value: float | None) -> str:
    """Three digits; a dash for what does not exist."""
    return "--" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main(sys.argv[1])
