"""How facts are worded: checks with their outcome, digests, lists and numbers, estimates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from auditkit.formats.statements import Manifest
from auditkit.paper.questions import BASE_CHECKS, Answer
from auditkit.records.back_flow import BackFlow
from auditkit.records.estimate import (
    AS_IS,
    MIN_PAIRS,
    PRIMARY,
    DistanceEstimate,
    EstimateTable,
    Interval,
    SignedEstimate,
)
from auditkit.records.fork_points import views
from auditkit.records.manifest import BranchRecord, SeedRecord, StudyManifest
from auditkit.records.metric_names import qualified, split_metric
from auditkit.records.output_kinds import SIZELESS
from auditkit.records.plan import CONFIRMATORY, as_typed, rounded
from auditkit.records.report import OPEN, CheckResult, VerificationReport

#: Hex digits that are cited: enough to be found in the manifest, and not to be met by chance.
SHOWN_DIGITS = 16

#: Things that are listed before the rest is only counted.
MAX_LISTED = 8

#: Characters of one value from a manifest; there is no limit to what a program calls its model.
MAX_VALUE = 300

_HOW_TO_RUN = {
    8: "run auditkit checklist with --replay all, or give --report with the JSON report of "
    "auditkit verify --replay all",
    10: "it is computed where checks 1 to 9 passed",
}


def answer_from_checks(report: VerificationReport, checks: Sequence[int]) -> tuple[Answer, str]:
    """What a set of checks allows to answer.

    Args:
        report: The verifier's report.
        checks: Checks behind the item; :data:`BASE_CHECKS` are always behind it, too.

    Returns:
        ``yes`` and nothing where all passed; ``no`` and the findings where one failed; else
        ``todo`` and how to run what was not run.
    """
    by_number = {check.number: check for check in report.checks}
    behind = sorted({*BASE_CHECKS, *checks})
    failed = [by_number[n] for n in behind if n in by_number and by_number[n].status == "failed"]
    if failed:
        return "no", " ".join(_failure(check) for check in failed)
    open_ones = [n for n in behind if n not in by_number or by_number[n].status != "passed"]
    if open_ones:
        return "todo", " ".join(_not_run(n, by_number.get(n)) for n in open_ones)
    return "yes", ""


def passed(report: VerificationReport, *checks: int) -> bool:
    """Whether all of these checks passed."""
    good = {check.number for check in report.checks if check.status == "passed"}
    return good.issuperset(checks)


def unreplayed(report: VerificationReport) -> str:
    """What to say beside plan, optimizer and data that nothing has executed again."""
    return "" if passed(report, 8) else " Not replayed: as recorded, and executed by no check."


def why_no_estimates(report: VerificationReport) -> str | None:
    """Why nothing can be estimated from what otherwise verifies; None where that is not so.

    An honest study of which everything diverged is such: nothing in it is false.
    """
    if [check.number for check in report.checks if check.findings] != [10]:
        return None
    return f"checks 1 to 9 passed, and nothing can be estimated: {report.checks[9].findings[0]}"


def why_withheld(report: VerificationReport) -> str:
    """Why a report has no estimates, in the words of its check 10."""
    check = report.checks[9]
    reason = check.summary or next(map(str, check.findings), check.status)
    return f"check 10, {reason.removeprefix('withheld: ')}"


def digest(sha256: str | None) -> str:
    """The first digits of a digest."""
    return "absent" if sha256 is None else f"{sha256[:SHOWN_DIGITS]}..."


def clipped(text: object) -> str:
    """A value from a manifest on one line and of bounded length."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= MAX_VALUE else f"{flat[:MAX_VALUE]}..."


def listed(items: Iterable[object], limit: int = MAX_LISTED) -> str:
    """A list in one line, its end only counted where it is long."""
    texts = [clipped(item) for item in items]
    rest = [f"and {len(texts) - limit} more"] if len(texts) > limit else []
    return ", ".join([*texts[:limit], *rest])


def pairs(items: Mapping[str, object], names: Iterable[str] | None = None) -> str:
    """Names and values in one line: those of ``names`` that exist, or all."""
    wanted = items if names is None else [name for name in names if name in items]
    return "; ".join(f"{clipped(name)}: {clipped(items[name])}" for name in wanted)


def number(figure: float | None) -> str:
    """A figure with four significant digits."""
    return "not defined" if figure is None else f"{figure:.4g}"


def count(figure: int, noun: str, plural: str | None = None) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{figure:,} {noun if figure == 1 else plural or noun + 's'}"


def cited_seeds(manifest: StudyManifest) -> tuple[SeedRecord, ...]:
    """The seeds whose digests are cited one by one."""
    return manifest.seeds[:MAX_LISTED]


def cited_forks(manifest: StudyManifest) -> Iterator[tuple[str, SeedRecord]]:
    """The cited seeds at every fork, and what t0 is called there: with its step, of several."""
    forked = views(manifest)
    for by_fork in zip(*map(cited_seeds, forked), strict=False):
        for view, seed in zip(forked, by_fork, strict=True):
            yield "t0" if len(forked) == 1 else f"t0={view.plan.fork_at}", seed


def more_seeds(manifest: StudyManifest, check: int) -> tuple[str, ...]:
    """A line for the seeds that are not cited one by one."""
    rest = len(manifest.seeds) - MAX_LISTED
    return (f"check {check}; {count(rest, 'more seed')}: see the manifest",) if rest > 0 else ()


def file_digest(manifest: Manifest, name: str) -> str:
    """The first digits of a file's SHA-256."""
    return digest(next((file.sha256 for file in manifest.files if file.name == name), None))


def digest_at(branch: BranchRecord, time: str, component: str) -> str | None:
    """The digest of a component of a branch, where it has one."""
    return branch.digests.get(time, {}).get(component)


def order_lines(manifest: StudyManifest) -> Iterator[str]:
    """The order of the cited seeds, and of their branches that have another."""
    for t0, seed in cited_forks(manifest):
        control = seed.branches[0]
        yield (
            f"check 6; order sha256 of seed {seed.seed}: whole run {digest(seed.order_sha256)}, "
            f"control after {t0} {digest(control.order_sha256)}"
        )
        for branch in seed.branches:
            if branch.order_sha256 != control.order_sha256:
                yield (
                    f"check 6; order sha256 of seed {seed.seed}, {_name(branch)} after {t0} "
                    f"{digest(branch.order_sha256)}"
                )


def spec_text(branch: BranchRecord) -> str:
    """A perturbation as it is typed, with all its parameters."""
    spec = branch.perturbation
    return clipped(branch.name if spec is None else spec.typed)


def _name(branch: BranchRecord) -> str:
    return spec_text(branch) if branch.role == "treatment" else clipped(branch.name)


def changed_at_fork(branch: BranchRecord, control: BranchRecord) -> str:
    """What differs from the control at t0, with the digests of what it became."""
    here, there = branch.digests.get("t0", {}), control.digests.get("t0", {})
    changed = [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
    if changed:
        return "at t0 " + listed(f"{clipped(n)} {digest(here.get(n))}" for n in changed)
    if branch.order_sha256 != control.order_sha256:
        return f"nothing at t0; order sha256 after t0 {digest(branch.order_sha256)}"
    return "nothing at t0, the control's order"


def outcome_lines(manifest: StudyManifest, report: VerificationReport, role: str) -> list[str]:
    """Digests of the outcome tables that estimates of a role come from, for the first seed."""
    first = manifest.seeds[0]
    shown_by = "checks 3 and 8" if report.verdict == "verified" else "check 3"
    wanted = [branch for branch in first.branches if branch.role in ("control", role)]
    lines = [
        f"{shown_by}; seed {first.seed}, outcome file of {_name(branch)}: "
        f"{file_digest(manifest, branch.outcome)}"
        for branch in wanted[: MAX_LISTED + 1]
    ]
    if len(manifest.seeds) > 1:
        lines.append(f"{shown_by}; outcome files of the other seeds: see the manifest")
    return lines


def _failure(check: CheckResult) -> str:
    findings = [clipped(finding) for finding in check.findings[:3]]
    rest = len(check.findings) - len(findings)
    more = f"; and {rest} more" if rest > 0 else ""
    return f"Check {check.number} ({check.name}) failed: {'; '.join(findings)}{more}."


def _not_run(wanted: int, check: CheckResult | None) -> str:
    if check is not None and check.status in OPEN:
        return f"Check {wanted} cannot be decided: {clipped(check.findings[0])}."
    reason = f" ({clipped(check.summary)})" if check is not None and check.summary else ""
    how = _HOW_TO_RUN.get(wanted, "run auditkit verify and see why")
    return f"Check {wanted} was not run{reason}: {how}."


# Estimates in sentences

_Row = SignedEstimate | DistanceEstimate


def primary_rows(estimates: EstimateTable) -> list[_Row]:
    """The rows that the plan's primary metric is judged by."""
    return [row for row in estimates.rows if row.family == PRIMARY]


def has_tests(estimates: EstimateTable) -> bool:
    """Whether a row of the primary metric says how certain it is."""
    return any(
        row.exactly_zero or row.interval is not None or row.test_p is not None
        for row in primary_rows(estimates)
    )


def uncertainty(estimates: EstimateTable) -> str:
    """How the estimates are made and how many pairs they rest on."""
    rows = primary_rows(estimates)
    is_distance = any(isinstance(row, DistanceEstimate) for row in rows)
    level = f"{100 * estimates.level:g} % t interval"
    method = (
        "excess over the placebo floor, tested by permuting the label treatment within each seed; "
        f"{level} of the per-seed excess beside it"
        if is_distance
        else f"treatment minus control paired by seed, with a paired t test and a {level}"
    )
    text = (
        f"The unit is the seed ({count(estimates.n_seeds, 'seed')}); probe examples are never "
        f"pooled. Primary metric {clipped(estimates.primary_metric)}: {method}. Holm's correction "
        f"over {count(len(rows), 'primary estimate')} at alpha {estimates.alpha:g}; "
        f"{count(len(estimates.rows) - len(rows), 'other estimate')} exploratory, with "
        f"Benjamini-Hochberg q values. Intervals and tests need at least {MIN_PAIRS} pairs."
    )
    if estimates.back_flow:
        text += (
            " Back-flow is D2 - D1 of each seed: t tests against 0 and of what lies above the "
            "placebos' floor, of which the larger p counts, with q values over its own rows; "
            "exploratory."
        )
    diverged = {name: n for name, n in estimates.diverged.items() if n}
    if diverged:
        shown = ", ".join(f"{clipped(name)} in {count(n, 'seed')}" for name, n in diverged.items())
        text += f" Diverged and left out: {shown}."
    return text


def primary_lines(estimates: EstimateTable) -> list[str]:
    """A line for each estimate of the primary metric."""
    rows = primary_rows(estimates)
    lines = [_row(row) + _undeveloped(row, estimates) for row in rows[: 2 * MAX_LISTED]]
    rest = len(rows) - len(lines)
    return [*lines, f"{count(rest, 'more primary estimate')}"] if rest > 0 else lines


def back_flow_lines(estimates: EstimateTable) -> list[str]:
    """A line for each back-flow of the primary metric, or of the first one that there is."""
    first = next((row.metric for row in estimates.back_flow), "")
    metrics = {row.metric for row in estimates.back_flow}
    metric = estimates.primary_metric if estimates.primary_metric in metrics else first
    rows = [row for row in estimates.back_flow if (row.metric, row.variant) == (metric, AS_IS)]
    lines = [_back_flow(row) for row in rows[: 2 * MAX_LISTED]]
    rest = len(rows) - len(lines)
    return [*lines, f"{count(rest, 'more back-flow')}"] if rest > 0 else lines


def floor_summary(estimates: EstimateTable) -> str:
    """Whether the floor has developed."""
    floor = estimates.floor
    if floor.developed is None:
        return SIZELESS if floor.n_placebos else "No placebo stands, so there is no floor."
    state = "has developed" if floor.developed else "has not developed"
    text = (
        f"The floor {state} at T: {floor.n_above} of {count(floor.n_placebos, 'placebo')} exceed "
        f"{floor.of} {floor.threshold:g}"
    )
    return text + (
        "." if floor.developed else "; an excess at T is over a nudge that has not grown yet."
    )


def floor_lines(estimates: EstimateTable) -> list[str]:
    """The floor of the primary distance (of TV, or the first, where that is none), t0+W and T."""
    metrics = list(dict.fromkeys(row.metric for row in estimates.distances))
    first = next(iter(metrics), "")
    tv = qualified(split_metric(first)[0], "tv")
    metric = next((m for m in (estimates.primary_metric, tv) if m in metrics), first)
    lines = []
    for time in CONFIRMATORY:
        for row in estimates.distances:
            if (row.metric, row.time, row.variant) == (metric, time, AS_IS) and row.n_with_floor:
                lines.append(
                    f"floor of {clipped(metric)} at {clipped(time)}: {number(row.floor)} over "
                    f"{count(row.n_with_floor, 'seed')}"
                    f" (other controls are {number(row.seed_distance)} apart)"
                )
                break
    return lines


def _row(row: _Row) -> str:
    name = f"{clipped(as_typed(row.perturbation))}, {clipped(row.metric)} at {clipped(row.time)}"
    n = f"n = {row.n}" + (f", {row.n_left_out} left out" if row.n_left_out else "")
    if isinstance(row, DistanceEstimate):
        kind = f"{row.permutation_kind} permutation " if row.permutation_kind else ""
        what = (
            f"excess {number(rounded(row.excess, row.metric))} over the floor {number(row.floor)}"
        )
    else:
        kind, what = "paired t ", f"ATE {number(rounded(row.ate, row.metric))}"
    p = "" if row.test_p is None else f", {kind}p = {row.test_p:.2g}"
    holm = "" if row.adjusted_p is None else f", Holm {row.adjusted_p:.2g}"
    return f"{name}: {what}{_interval(row.interval)} ({n}{p}{holm}): {clipped(row.verdict)}"


def _back_flow(row: BackFlow) -> str:
    name = f"back-flow of {clipped(as_typed(row.perturbation))}, {clipped(row.metric)}, {row.arm}"
    n = f"n = {row.n}" + (f", {row.n_left_out} left out" if row.n_left_out else "")
    q = "" if row.adjusted_p is None else f", q {row.adjusted_p:.2g}"
    inside = row.adjusted_equivalence_p
    within = (
        ""
        if row.margin is None
        else f", inside the margin {number(row.margin)}: "
        + ("not tested" if inside is None else f"q {inside:.2g}")
    )
    what = f"D2 - D1 {number(rounded(row.mean, row.metric))}{_interval(row.interval)}"
    said = clipped(row.verdict) if row.verdict else f"fewer than {MIN_PAIRS} seeds"
    return f"{name}: {what} ({n}{q}{within}): {said}"


def _undeveloped(row: _Row, estimates: EstimateTable) -> str:
    is_late = isinstance(row, DistanceEstimate) and row.time == "T" and not row.exactly_zero
    return "; floor not developed at T" if is_late and estimates.floor.developed is False else ""


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    low = "-inf" if interval.low is None else number(interval.low)
    high = "inf" if interval.high is None else number(interval.high)
    return f", {100 * interval.level:g} % interval [{low}, {high}]"
