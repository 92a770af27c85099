"""What the page of results has of the back-flow study: its regimes beside the paper's numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

import auditkit as ak
from auditkit.statistics.inference import paired_t_test, t_interval
from auditkit.types import BackFlow, EstimateTable

#: Mean back-flow (total variation) without and with a causal break, as section 4.4 of
#: arXiv 2601.16563 prints it: over two data sets and five models.
PAPER = {
    "resonant-strong": (0.00734, -0.0310),
    "resonant-mid": (-0.0177, -0.0448),
    "negative": (0.0006, 0.0005),
}
ARMS = {"carried": "carried", "broken": "broken", "contrast": "carried less broken"}
MARGIN = 0.001  # the paper's, for equivalence
TV = "classes/tv"


def block(folder: Path, regimes: Sequence[str]) -> str:
    """What was run, the table, the difference of two regimes, and the numbers of each seed."""
    found = {regime: _estimates(folder / regime) for regime in regimes}
    parts = [
        *(about(regime, folder / regime) for regime in regimes),
        "\n".join(_table(found)),
        _strong_less_mid(found),
        *(_negative(found[regime]) for regime in regimes if regime == "negative"),
        _alignment(found),
        f"```\n{per_seed(found)}\n```",
    ]
    return "\n\n".join(parts)


def about(regime: str, folder: Path) -> str:
    """How a regime was verified, and what it cost."""
    told = json.loads((folder / "tables.json").read_text())
    report = ak.load_report(folder / "report.json")
    assert report.environment is not None  # noqa: S101 # a report that was verified has one
    hardware, packages = report.environment.hardware, report.environment.packages
    return (
        f"`{regime}`: Verdict *{report.verdict}*, {report.replay}. {told['run']} processor seconds "
        f"to run and {told['verify']} to verify, on {hardware['processor']} with "
        f"{hardware['cpu capability']} and torch {packages['torch']}. "
        f"SHA-256 of the manifest: `{report.manifest_sha256[:16]}`."
    )


def per_seed(found: Mapping[str, EstimateTable]) -> str:
    """D2 - D1 of every seed."""
    lines = ["D2 - D1 (total variation) of each seed"]
    for regime, estimates in found.items():
        for arm, row in rows(estimates).items():
            if arm != "contrast":
                values = [f"{value:+.4f}" for value in row.per_seed]
                lines.append(f"{regime}, {arm}, seeds {row.seeds[0]}-{row.seeds[-1]}")
                lines += ["  " + " ".join(values[at : at + 10]) for at in range(0, len(values), 10)]
    return "\n".join(lines)


def rows(estimates: EstimateTable) -> dict[str, BackFlow]:
    """Back-flow in total variation, by arm."""
    return {row.arm: row for row in estimates.back_flow if row.metric == TV}


def _estimates(folder: Path) -> EstimateTable:
    report = ak.load_report(folder / "report.json")
    if report.estimates is None:
        raise SystemExit(f"{folder}: {report.verdict}")
    return report.estimates


def _table(found: Mapping[str, EstimateTable]) -> Iterator[str]:
    yield "| regime | arm | seeds | D2 - D1 [95 % interval] | verdict | in the paper |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for regime, estimates in found.items():
        carried, broken = PAPER[regime]
        printed = {"carried": carried, "broken": broken, "contrast": carried - broken}
        for arm, row in rows(estimates).items():
            here = "0, to the bit" if row.exactly_zero else _with_interval(row.per_seed)
            paper = f"{printed[arm]:+.4f}"
            yield f"| {regime} | {ARMS[arm]} | {row.n} | {here} | {row.verdict} | {paper} |"


def _strong_less_mid(found: Mapping[str, EstimateTable]) -> str:
    """The two regimes have the same seeds, trunks and segment A: they are paired."""
    parts = []
    for arm in ("carried", "contrast"):
        strong, mid = (
            dict(zip(row.seeds, row.per_seed, strict=True))
            for row in (rows(found[name])[arm] for name in ("resonant-strong", "resonant-mid"))
        )
        differences = [strong[seed] - mid[seed] for seed in strong if seed in mid]
        test = paired_t_test(np.array(differences))
        tested = "" if test is None else f", t = {test.t:.2f}, p = {test.p:.2g}"
        parts.append(f"{ARMS[arm]} {_with_interval(differences)}, {len(differences)} pairs{tested}")
    carried = PAPER["resonant-strong"][0] - PAPER["resonant-mid"][0]
    return (
        f"resonant-strong less resonant-mid, paired by seed: {'; '.join(parts)} "
        f"(in the paper {carried:+.4f}, carried)."
    )


def _negative(estimates: EstimateTable) -> str:
    """What two histories show that differ by rounding noise alone."""
    floors = [value for value in rows(estimates)["carried"].floor_per_seed if value is not None]
    largest = max(map(abs, floors))
    inside = "inside" if largest < MARGIN else "outside"
    return (
        f"In the negative control A' is A, so that there is nothing to estimate. Its placebos, two "
        f"histories that differ by rounding noise, have a D2 - D1 of at most {largest:.1g} in any "
        f"seed: {inside} the paper's margin of {MARGIN:g}."
    )


def _alignment(found: Mapping[str, EstimateTable]) -> str:
    parts = []
    for regime, estimates in found.items():
        for row in estimates.alignments:
            if row.n:
                history = "A" if row.history == "control" else "A'"
                parts.append(f"{regime}, {history} {_with_interval(row.per_seed)}")
    return f"Momentum against gradient where B begins (cosine): {'; '.join(parts)}."


def _with_interval(values: Sequence[float]) -> str:
    interval = t_interval(np.array(values), 0.95)
    mean = f"{float(np.mean(values)):+.4f}"
    return mean if interval is None else f"{mean} [{interval.low:+.4f}, {interval.high:+.4f}]"
