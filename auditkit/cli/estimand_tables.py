"""Estimands as tables: the controls' own level, distances from the control, and effects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console

from auditkit.cli.columns import fold
from auditkit.cli.console import fixed, interval, number, print_table, print_words
from auditkit.cli.row_signs import (
    Row,
    distance_notes,
    drawn_p,
    effect_notes,
    few_pairs_notes,
    p_value,
    verdict_of,
)
from auditkit.cli.spelling import counted
from auditkit.records.estimate import (
    AS_IS,
    BELOW_FLOOR,
    DEVELOPED_SHARE,
    PRIMARY,
    UNDEVELOPED,
    ControlLevel,
    DistanceEstimate,
    EstimateTable,
    FloorDevelopment,
    Persistence,
    SignedEstimate,
)
from auditkit.records.further_estimates import Generalised, Spread
from auditkit.records.metric_names import base_metric, is_measure
from auditkit.records.output_kinds import BETTER, SIZELESS
from auditkit.records.perturbation_spec import FORK_MARK
from auditkit.records.plan import CONFIRMATORY, DISTANCE_METRICS, as_typed, rounded

#: Name of the table of persistence, and what stands above its columns.
PERSISTENCE = "persistence"
PERSISTENCE_HEADINGS = ("perturbation", "metric", "persistence", "95 % interval", "note")

#: Metrics that are shown without ``--all``.
_SHOWN = (
    *("tv", "accuracy", "nll"),
    *("rmsd", "scaled_rmsd", "mse", "r2", "cka_distance", "relative_distance"),
)

#: A space at which no line is folded.
_FAST = "\N{NO-BREAK SPACE}"

#: Where a reader of the terminal finds the rest, below the last table.
_MORE = {
    "distances": "; other metrics and persistence: --all, --json",
    "effects": "; the sign-flip test, other metrics and persistence: --all, --json",
}

#: Rows that are shown, of some kind.
_Shown = TypeVar("_Shown", SignedEstimate, DistanceEstimate, ControlLevel, Spread, Generalised, Row)


@dataclass(frozen=True)
class EstimandTable:
    """One table of estimands, formatted.

    Attributes:
        name: Its layout in :data:`auditkit.cli.console.LAYOUTS`.
        title: The line above it.
        rows: Cells under each heading.
        notes: Lines below it.
    """

    name: str
    title: str
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def print_estimates(out: Console, estimates: EstimateTable, *, everything: bool) -> None:
    """Print the estimand tables."""
    for line in head_lines(estimates):
        out.print(line)
    out.print()
    tables = list(estimand_tables(estimates, everything=everything))
    for table in tables:
        notes = list(table.notes)
        if table is tables[-1] and not everything:
            notes[0] += _MORE[table.name]
        print_table(out, table.name, table.rows, title=table.title, notes=notes)
    if len(estimates.times) > len(CONFIRMATORY):
        _print_curves(out, estimates, everything=everything)
    for note in estimates.notes:
        out.print(f"Note: {note}")


def head_lines(estimates: EstimateTable) -> Iterator[str]:
    """What stands above the tables: how many seeds, when, and whether the floor has developed."""
    times = ", ".join(f"{name} = step {estimates.times[name]}" for name in CONFIRMATORY)
    if estimates.forks:
        window = estimates.times[CONFIRMATORY[0]] - estimates.forks[0]
        steps = ", ".join(map(str, estimates.forks))
        times = f"forks after steps {steps}, W = {counted(window, 'step')}, "
        times += f"T = step {estimates.times['T']}"
    further = len(estimates.times) - len(CONFIRMATORY)
    if further:
        times += f", {counted(further, 'further time')}"
    yield (
        f"Estimands over {counted(estimates.n_seeds, 'seed')}, "
        f"{counted(estimates.placebos, 'placebo')} each; {times}; "
        f"primary metric {estimates.primary_metric}"
    )
    margins = {row.metric: row.margin for row in estimates.rows if row.margin is not None}
    if margins:
        told = ", ".join(f"{name} {margin:g}" for name, margin in margins.items())
        yield f"Margins of the plan, within which an effect is negligible: {told}"
    yield from _floor(estimates.floor)
    diverged = {name: count for name, count in estimates.diverged.items() if count}
    if diverged:
        shown = ", ".join(f"{as_typed(name)} in {count}" for name, count in diverged.items())
        yield f"Diverged and left out, by number of seeds: {shown}"


def estimand_tables(estimates: EstimateTable, *, everything: bool) -> Iterator[EstimandTable]:
    """The control's own level, distances and effects: all rows, or those shown by default.

    Of distances and effects only one stands where a probe or measure gives nothing of the other.
    """
    levels = shown_rows(estimates.levels, estimates, everything=everything)
    if levels:
        title = f"What the control reaches: mean over {counted(len(levels[0].per_seed), 'seed')}"
        guessed = all(level.constant_guess is not None for level in levels)
        notes = () if guessed else ("- for constant guess: a measure is the program's own",)
        yield EstimandTable("levels", title, tuple(map(_level, levels)), notes)
    distances = shown_rows(estimates.distances, estimates, everything=everything)
    effects = shown_rows(estimates.signed, estimates, everything=everything)
    if distances or not effects:
        yield _distances(distances, estimates)
    if effects or not distances:
        yield _effects(effects)


def _floor(floor: FloorDevelopment) -> Iterator[str]:
    """Whether the floor has developed, by which rule, and what to do where it has not."""
    if floor.developed is None:
        yield from [SIZELESS] if floor.n_placebos else []
        return
    share = f"{floor.n_above} of {counted(floor.n_placebos, 'placebo')}"
    rule = f"at least {DEVELOPED_SHARE * 100:g} % have to"
    if floor.developed:
        yield f"Floor developed at T: {share} exceed {floor.of} {floor.threshold:g} ({rule})"
        return
    yield f"Floor not developed at T: {share} exceed {floor.of} {floor.threshold:g}; {rule}"
    yield (
        "  The nudge has not grown yet: make it larger (run --placebo-scale, or placebo_scale= in "
        "the plan), or T later (--horizon)"
    )


def persistence_table(estimates: EstimateTable) -> EstimandTable:
    """Effect at T over effect at t0+W, of every row that has both."""
    rows = (
        (
            as_typed(row.perturbation),
            _metric(row),
            number(row.ratio),
            "-" if row.interval is None else interval(row.interval, ""),
            row.reason or "",
        )
        for row in estimates.persistence
    )
    return EstimandTable(
        "persistence", "Persistence: the effect at T over that at t0+W", tuple(rows)
    )


def _distances(rows: Sequence[DistanceEstimate], estimates: EstimateTable) -> EstimandTable:
    is_late = [_is_undeveloped(row, estimates) for row in rows]
    notes = ["rho: 0 = floor, 1 = as different as another seed; p: within-seed permutation"]
    if any(is_late):
        notes.append("* floor not developed at T: compared with a nudge that has not grown yet")
    notes += [*few_pairs_notes(rows), *distance_notes(rows)]
    notes += [_closer(row) for row in rows if row.verdict == BELOW_FLOOR]
    cells = [_distance(row, is_undeveloped=late) for row, late in zip(rows, is_late, strict=True)]
    title = "Distance from the control, and its excess over the placebo floor"
    return EstimandTable("distances", title, tuple(cells), tuple(notes))


def _closer(row: DistanceEstimate) -> str:
    """The p value that a verdict of being closer rests on; the table has those of the other end."""
    return (
        f"{_named(row)}, {_metric(row)}, {row.time}: below the floor by the permutation's other "
        f"end, p {p_value(row.below_p)}, adjusted {p_value(row.adjusted_below_p)}"
    )


def _effects(rows: Sequence[SignedEstimate]) -> EstimandTable:
    notes = ["p: paired t", *_directions(rows), *few_pairs_notes(rows), *effect_notes(rows)]
    if any(row.sd is not None and row.interval is None for row in rows):
        notes.append("- for interval and p: the same in every seed: no spread, no test")
    title = "Treatment minus control, paired by seed"
    return EstimandTable("effects", title, tuple(map(_effect, rows)), tuple(notes))


def _directions(rows: Sequence[SignedEstimate]) -> Iterator[str]:
    """Which way is better, of metrics of real numbers."""
    named = {base_metric(row.metric) for row in rows}
    parts = {
        better: [metric for metric in BETTER if metric in named and BETTER[metric] == better]
        for better in dict.fromkeys(BETTER.values())
    }
    told = [
        f"{', '.join(metrics)}: {better} is better" for better, metrics in parts.items() if metrics
    ]
    if told:
        yield "; ".join(told)


def _print_curves(out: Console, estimates: EstimateTable, *, everything: bool) -> None:
    """Print the primary metric at every time, a line for each perturbation."""
    curves: dict[str, list[str]] = {}
    for row in estimates.rows:
        if row.metric == estimates.primary_metric and row.variant == AS_IS:
            curves.setdefault(as_typed(row.perturbation), []).append(f"{row.time} {_size(row)}")
    for level in estimates.levels:
        if base_metric(level.metric) == "accuracy" and level.variant == AS_IS:
            point = f"{level.time} {number(level.mean)}"
            curves.setdefault(f"{level.metric} of the control", []).append(point)
    is_distance = base_metric(estimates.primary_metric) in DISTANCE_METRICS
    what = "excess over the floor" if is_distance else "ATE"
    out.print(f"{estimates.primary_metric} over time: {what}", style="bold")
    for name, points in curves.items():
        whole = ", ".join(point.replace(" ", _FAST) for point in points)  # never cut in two
        first, *rest = fold(f"{name}: {whole}", out.width - 2)
        for line in (first, *(f"  {line}" for line in rest)):
            out.print(line.replace(_FAST, " "))
    more = "" if everything else "; their tests, intervals and other metrics: --all, --json"
    out.print(f"t0+N: exploratory{more}")
    print_words(out, ("over time",))
    out.print()


def _size(row: SignedEstimate | DistanceEstimate) -> str:
    """The effect by itself."""
    if row.exactly_zero:
        return "exactly 0"
    effect = row.ate if isinstance(row, SignedEstimate) else row.excess
    return number(rounded(effect, row.metric))


def shown_rows(
    rows: Sequence[_Shown], estimates: EstimateTable, *, everything: bool
) -> list[_Shown]:
    """Rows of the metrics and times that are shown by default, or all of them.

    A metric with a margin is among them: somebody asked about it before the run.
    """
    if everything:
        return list(rows)
    asked = {row.metric for row in estimates.rows if row.margin is not None}
    return [
        row
        for row in rows
        if row.time.partition(FORK_MARK)[0] in CONFIRMATORY
        and (
            row.metric == estimates.primary_metric
            or (row.variant == AS_IS and (row.metric in asked or _is_shown(row.metric)))
        )
    ]


def _is_shown(metric: str) -> bool:
    return base_metric(metric) in _SHOWN or is_measure(metric)


def _level(row: ControlLevel) -> tuple[str, ...]:
    return (
        _metric(row),
        as_typed(row.time),
        number(row.mean),
        number(row.spread),
        number(row.constant_guess),
        {True: "at chance", False: "better", None: "-"}[row.at_chance],
    )


def _distance(row: DistanceEstimate, *, is_undeveloped: bool) -> tuple[str, ...]:
    return (
        _named(row),
        _metric(row),
        row.time,
        number(row.mean_distance),
        number(row.floor),
        number(rounded(row.excess, row.metric)),
        fixed(row.rho),
        drawn_p(row.permutation_p, row.permutation_kind),
        _adjusted(row),
        verdict_of(row, is_undeveloped=is_undeveloped),
    )


def _effect(row: SignedEstimate) -> tuple[str, ...]:
    return (
        _named(row),
        _metric(row),
        row.time,
        number(rounded(row.ate, row.metric)),
        interval(row.interval, row.metric),
        fixed(row.ate_in_control_sd),
        p_value(row.t_p),
        _adjusted(row),
        verdict_of(row),
    )


def _named(row: SignedEstimate | DistanceEstimate) -> str:
    """The treatment, and whether its data are its own."""
    name = as_typed(row.perturbation)
    return f"{name} ({row.effect} effect)" if row.effect else name


def _is_undeveloped(row: DistanceEstimate, estimates: EstimateTable) -> bool:
    if estimates.forks:  # the floor of one fork says nothing of another's
        return UNDEVELOPED in row.notes
    return row.time == "T" and not row.exactly_zero and estimates.floor.developed is False


def _metric(row: SignedEstimate | DistanceEstimate | ControlLevel | Persistence) -> str:
    return row.metric if row.variant == AS_IS else f"{row.metric} (recal.)"


def _adjusted(row: SignedEstimate | DistanceEstimate) -> str:
    if row.adjusted_p is None:
        return "-"
    return f"{p_value(row.adjusted_p)} {'Holm' if row.family == PRIMARY else 'q'}"
