"""``auditkit power``: how many seeds a study needs.

``--json`` prints the record :class:`auditkit.records.power.PowerReport`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import click
from rich.console import Console
from rich.filesize import decimal

from auditkit.api.seeds_needed import Asked, by_pilot, by_sd
from auditkit.cli.console import console, fixed, number, print_facts, print_table
from auditkit.cli.help import Command
from auditkit.cli.options import TEXT, WHOLE
from auditkit.cli.received import received_manifest
from auditkit.cli.saying import say
from auditkit.cli.spelling import counted, duration
from auditkit.errors import UsageError
from auditkit.formats import canonical
from auditkit.records.metric_names import base_metric
from auditkit.records.plan import DISTANCE_METRICS, as_typed
from auditkit.records.plan_values import spelled_seeds
from auditkit.records.power import MOST_SIMULATED, POWER, PowerReport, PowerRow


@click.command(cls=Command)
@click.argument("pilot", required=False, type=TEXT)
@click.option("--sd", type=TEXT, help="Without a pilot: SD of the paired differences.")
@click.option("--effect", required=True, type=TEXT, help="Difference to detect, in the metric.")
@click.option("--metric", type=TEXT, help="A metric; by default the primary one of the pilot.")
@click.option("--margin", type=TEXT, help="Also: seeds to show that the effect is below this.")
@click.option("--power", "aimed", type=TEXT, help="Chance to detect the effect, 0.8 by default.")
@click.option(
    "--tests", type=WHOLE, help="Tests to correct for; by default those of the pilot's plan, or 1."
)
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.pass_context
def power(  # noqa: PLR0913 # one argument an option
    ctx: click.Context,
    /,
    pilot: str | None,
    sd: str | None,
    effect: str,
    metric: str | None,
    margin: str | None,
    aimed: str | None,
    tests: int | None,
    *,
    as_json: bool,
) -> None:
    """Say how many seeds a study needs, by the study PILOT or by a standard deviation."""
    if pilot is not None and sd is not None:
        raise UsageError("a pilot study says the standard deviation: give it, or --sd, not both")
    if pilot is None and sd is None:
        raise UsageError("give a pilot study (PILOT), or a standard deviation with --sd")
    if tests is not None and tests < 1:
        raise UsageError(f"--tests must be at least 1, not {tests}")
    chance = POWER if aimed is None else _positive("--power", aimed)
    if chance >= 1:
        raise UsageError(f"--power must be below 1, not {chance:g}")
    wanted, limit = _positive("--effect", effect), margin and _positive("--margin", margin)
    asked = Asked(metric, wanted, limit or None, chance, tests)
    if pilot is None:
        report = by_sd(_positive("--sd", sd or ""), asked)
    else:
        report = by_pilot(ctx.with_resource(received_manifest(pilot)).path, asked, say)
    if as_json:
        click.echo(canonical.encode(report).decode("ascii"))
        return
    _print(report)


def _positive(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{option} must be a number above 0", found=text)
    return value


def _print(report: PowerReport) -> None:
    out = console()
    print_facts(out, _facts(report), width=30)
    rows = [_cells(row) for row in report.rows]
    print_table(out, "power", rows, title="seeds needed", notes=_left_out(report))
    curve = [
        (str(point.seeds), f"{point.power:.2f}", fixed(point.power_simulated))
        for point in report.curve
    ]
    title = "power by number of seeds"
    if report.of_curve.perturbation:
        title += f", for {_place(report.of_curve)}"
    print_table(out, "power curve", curve, title=title, notes=[_tests(report)])
    _print_cost(out, report)
    out.print("For the paper:", style="bold")
    out.print(_sentence(report))


def _left_out(report: PowerReport) -> list[str]:
    """What of the pilot has no row, a line for each reason."""
    places: dict[str, list[str]] = {}
    for one in report.left_out:
        places.setdefault(one.why, []).append(f"{as_typed(one.perturbation)} at {one.time}")
    return [f"without a spread, {why}: {', '.join(each)}" for why, each in places.items()]


def _tests(report: PowerReport) -> str:
    """Which test each column of the curve is of, and which of them gives the verdict."""
    if base_metric(report.metric) not in DISTANCE_METRICS:
        return "relabeling: the sign-flip test, simulated; the verdict follows the t test"
    if not _is_simulated(report):
        return (
            "a distance is judged by the permutation, which is not simulated here: this is not it"
        )
    return "relabeling: the permutation, simulated, which judges a distance; the t test does not"


def _facts(report: PowerReport) -> Iterator[tuple[str, str]]:
    yield "metric", report.metric
    yield "effect", number(report.effect)
    if report.margin is not None:
        yield "margin", number(report.margin)
    yield "power", f"{report.power:g}"
    size = f"{report.alpha:g}"
    if report.n_tests > 1:
        size += f", Holm over {report.n_tests} tests: {report.alpha / report.n_tests:.3g} each"
    yield "alpha", size
    if base_metric(report.metric) in DISTANCE_METRICS:
        why = "with less the permutation test cannot reach it, whatever the data"
        yield (
            "test",
            "the permutation, which judges a distance, in studies simulated from the pilot's own "
            "seeds; beside it the paired t test of the excess"
            if _is_simulated(report)
            else "the numbers are the paired t test's of the excess; a study judges a distance by "
            "the permutation, which is not simulated here and may need more or fewer",
        )
    else:
        why = "with less the sign-flip test, which does not assume normality, cannot reach it"
        yield (
            "test",
            "paired t test, which can do with fewer seeds than the sign-flip test; that is "
            "simulated",
        )
    yield "fewest seeds", f"{report.fewest}: {why}"


def _is_simulated(report: PowerReport) -> bool:
    """Whether studies were simulated, whatever came of it."""
    return any(point.power_simulated is not None for point in report.curve)


def _cells(row: PowerRow) -> tuple[str, ...]:
    return (
        as_typed(row.perturbation) or "-",
        row.time or "-",
        "-" if row.n is None else str(row.n),
        number(row.sd),
        number(row.upper_sd),
        _seeds(row.seeds),
        _seeds(row.seeds_plug_in),
        _seeds(row.seeds_simulated),
        number(row.smallest_effect),
        _seeds(row.seeds_equivalence),
    )


def _seeds(value: int | None) -> str:
    return "-" if value is None else str(value)


def _needed(report: PowerReport) -> int | None:
    """Seeds for every row that has an answer, no fewer than any test needs; None where none has."""
    judged = base_metric(report.metric) in DISTANCE_METRICS
    counts = [
        row.seeds if row.seeds_simulated is None or not judged else row.seeds_simulated
        for row in report.rows
        if row.seeds is not None
    ]
    return max(*counts, report.fewest) if counts else None


def _place(row: PowerRow) -> str:
    return f"{as_typed(row.perturbation)} at {row.time}"


def _print_cost(out: Console, report: PowerReport) -> None:
    needed, cost = _needed(report), report.cost
    if needed is None or cost is None:
        return
    space = decimal(int(cost.bytes * needed))
    out.print(
        f"{counted(needed, 'seed')} would take {cost.steps * needed:,} steps, "
        f"{duration(cost.seconds * needed)} as the pilot was run, and {space}"
    )
    spelled = spelled_seeds(sorted(report.pilot_seeds))
    out.print(
        f"Use other seeds than the pilot's ({spelled}): with them again a test at 0.05 rejects "
        "up to 9 % of true nulls"
    )


def _sentence(report: PowerReport) -> str:
    needed, row = _needed(report), report.of_curve
    if needed is None:
        return "No number of seeds within reason detects this effect."
    sd = f"a standard deviation of {number(row.sd)}"
    if row.upper_sd is not None:
        pilot = counted(row.n or 0, "pilot seed")
        sd = f"the 80 % upper confidence limit, {number(row.upper_sd)}, of the standard deviation "
        sd += f"of {pilot}"
    tests = f" after Holm's correction for {report.n_tests} tests" if report.n_tests > 1 else ""
    distances = base_metric(report.metric) in DISTANCE_METRICS
    answered = [row for row in report.rows if row.seeds is not None]
    test, what = "paired t test, two-sided", "paired differences"
    if distances and all(row.seeds_simulated is not None for row in answered):
        test = "permutation of labels within seeds, one-sided, simulated from the pilot's seeds"
        what = "excess"
    return (
        f"{needed} seeds detect a difference of {number(report.effect)} in {report.metric} with a "
        f"power of at least {report.power:g} ({test}, alpha {report.alpha:g}"
        f"{tests}), by {sd} of the {what}.{_without_answer(report)}"
    )


def _without_answer(report: PowerReport) -> str:
    """What the sentence does not hold for."""
    places = [_place(row) for row in report.rows if row.seeds is None]
    text = f" Not of {', '.join(places)}: no number of seeds within reason does." if places else ""
    open_ = [r for r in report.rows if r.seeds is not None and r.seeds_simulated is None]
    if open_ and base_metric(report.metric) in DISTANCE_METRICS and _is_simulated(report):
        text += (
            " The permutation of labels within seeds, which gives a distance its verdict, does not "
            f"reach that power in simulated studies of up to {MOST_SIMULATED} seeds of "
            f"{', '.join(map(_place, open_))}."
        )
    return text
