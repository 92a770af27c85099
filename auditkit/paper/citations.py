"""How the checklist cites: checks with their outcome, digests, lists and numbers in short."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from auditkit.paper.questions import BASE_CHECKS, Answer
from auditkit.records.manifest import BranchRecord, SeedRecord, StudyManifest
from auditkit.records.report import CheckResult, VerificationReport

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


def standing(report: VerificationReport, checks: Sequence[int]) -> tuple[Answer, str]:
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


def digest(value: str | None) -> str:
    """The first digits of a digest."""
    return "absent" if value is None else f"{value[:SHOWN_DIGITS]}..."


def value(text: object) -> str:
    """A value from a manifest on one line and of bounded length."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= MAX_VALUE else f"{flat[:MAX_VALUE]}..."


def listed(items: Iterable[object], limit: int = MAX_LISTED) -> str:
    """A list in one line, its end only counted where it is long."""
    texts = [value(item) for item in items]
    rest = [f"and {len(texts) - limit} more"] if len(texts) > limit else []
    return ", ".join([*texts[:limit], *rest])


def pairs(items: Mapping[str, object], names: Iterable[str] | None = None) -> str:
    """Names and values in one line: those of ``names`` that exist, or all."""
    wanted = items if names is None else [name for name in names if name in items]
    return "; ".join(f"{value(name)}: {value(items[name])}" for name in wanted)


def number(figure: float | None) -> str:
    """A figure with four significant digits."""
    return "not defined" if figure is None else f"{figure:.4g}"


def count(figure: int, noun: str, plural: str | None = None) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{figure:,} {noun if figure == 1 else plural or noun + 's'}"


def cited_seeds(manifest: StudyManifest) -> tuple[SeedRecord, ...]:
    """The seeds whose digests are cited one by one."""
    return manifest.seeds[:MAX_LISTED]


def more_seeds(manifest: StudyManifest, check: int) -> tuple[str, ...]:
    """A line for the seeds that are not cited one by one."""
    rest = len(manifest.seeds) - MAX_LISTED
    return (f"check {check}; {count(rest, 'more seed')}: see the manifest",) if rest > 0 else ()


def file_digest(manifest: StudyManifest, name: str) -> str:
    """The first digits of a file's SHA-256."""
    return digest(next((file.sha256 for file in manifest.files if file.name == name), None))


def digest_at(branch: BranchRecord, time: str, component: str) -> str | None:
    """The digest of a component of a branch, where it has one."""
    return branch.digests.get(time, {}).get(component)


def order_lines(manifest: StudyManifest) -> Iterator[str]:
    """The order of the cited seeds, and of their branches that have another."""
    for seed in cited_seeds(manifest):
        control = seed.branches[0]
        yield (
            f"check 6; order sha256 of seed {seed.seed}: whole run {digest(seed.order_sha256)}, "
            f"control after t0 {digest(control.order_sha256)}"
        )
        for branch in seed.branches:
            if branch.order_sha256 != control.order_sha256:
                yield (
                    f"check 6; order sha256 of seed {seed.seed}, {value(branch.name)} after t0 "
                    f"{digest(branch.order_sha256)}"
                )


def spec_text(branch: BranchRecord) -> str:
    """A perturbation with all its parameters."""
    spec = branch.perturbation
    if spec is None:
        return value(branch.name)
    parameters = ", ".join(f"{key}={spec.parameters[key]}" for key in sorted(spec.parameters))
    return value(f"{spec.name} ({parameters})" if parameters else spec.name)


def changed_at_fork(branch: BranchRecord, control: BranchRecord) -> str:
    """What differs from the control at t0, with the digests of what it became."""
    here, there = branch.digests.get("t0", {}), control.digests.get("t0", {})
    changed = [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
    if changed:
        return "at t0 " + listed(f"{value(n)} {digest(here.get(n))}" for n in changed)
    if branch.order_sha256 != control.order_sha256:
        return f"nothing at t0; order sha256 after t0 {digest(branch.order_sha256)}"
    return "nothing at t0, the control's order"


def outcome_lines(manifest: StudyManifest, report: VerificationReport, role: str) -> list[str]:
    """Digests of the outcome tables that estimates of a role come from, for the first seed."""
    first = manifest.seeds[0]
    shown_by = "checks 3 and 8" if report.verdict == "verified" else "check 3"
    wanted = [branch for branch in first.branches if branch.role in ("control", role)]
    lines = [
        f"{shown_by}; seed {first.seed}, outcome file of {value(branch.name)}: "
        f"{file_digest(manifest, branch.outcome)}"
        for branch in wanted[: MAX_LISTED + 1]
    ]
    if len(manifest.seeds) > 1:
        lines.append(f"{shown_by}; outcome files of the other seeds: see the manifest")
    return lines


def _failure(check: CheckResult) -> str:
    findings = [value(finding) for finding in check.findings[:3]]
    rest = len(check.findings) - len(findings)
    more = f"; and {rest} more" if rest > 0 else ""
    return f"Check {check.number} ({check.name}) failed: {'; '.join(findings)}{more}."


def _not_run(wanted: int, check: CheckResult | None) -> str:
    reason = f" ({value(check.summary)})" if check is not None and check.summary else ""
    how = _HOW_TO_RUN.get(wanted, "run auditkit verify and see why")
    return f"Check {wanted} was not run{reason}: {how}."
