"""Estimates beside the rows of the estimand tables: spread, other examples, margins, profiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from auditkit.cli.back_flow_table import (
    ALIGNMENT,
    BACK_FLOW,
    alignment_table,
    back_flow_table,
    equivalence_cells,
    shown_back_flow,
)
from auditkit.cli.console import fixed, interval, number, print_table
from auditkit.cli.estimand_tables import EstimandTable, persistence_table, shown_rows
from auditkit.cli.row_signs import drawn_p, p_value, said
from auditkit.records.estimate import (
    AS_IS,
    DistanceEstimate,
    EstimateTable,
    SignedEstimate,
)
from auditkit.records.further_estimates import Generalised, ProfileRow, Spread
from auditkit.records.plan import as_typed, rounded

_Row = SignedEstimate | DistanceEstimate
_Key = tuple[str, str, str, str]

#: What parts of a probe are, by the first word of their names.
_PARTS = {
    "class": "class: by label",
    "margin": "margin 1/4: the quarter that the control was least sure of at t0",
    "confidence": "confidence 1/4: the positions that the control was least sure of at t0",
    "error": "error 1/4: the quarter on which the control was least wrong at t0",
    "likeness": "likeness 1/4: the quarter that was least like all others in the control at t0",
    "target": "target 1/4: the quarter with the smallest targets",
}

#: Where profiles end that are not printed in full.
_MAX_PROFILE = 40


def further_tables(estimates: EstimateTable, *, everything: bool) -> Iterator[EstimandTable]:
    """Tables that there is something in: all rows, or those of metrics shown by default."""
    rows: dict[_Key, _Row] = {_key(row): row for row in estimates.rows}
    limited = [row for row in estimates.rows if row.margin is not None]
    if with_margin := shown_rows(limited, estimates, everything=everything):
        title = "Equivalence: is the effect inside the plan's margin?"
        flows = shown_back_flow(estimates, everything=everything)
        cells = [*map(_equivalence, with_margin)]
        cells += [equivalence_cells(row) for row in flows if row.margin is not None]
        yield EstimandTable("equivalence", title, tuple(cells))
    if everything:
        yield from _sign_flips(estimates.signed)
    if spreads := shown_rows(estimates.spreads, estimates, everything=everything):
        title = "Seeds apart: what another seed would show, and what is more than noise"
        spread = tuple(_spread(each, rows.get(_key(each))) for each in spreads)
        notes = ["noise SD: as the placebos of a seed differ; exploratory"]
        if estimates.floor.developed is False:
            notes.append(
                "floor not developed at T: the placebos' nudge has not grown yet, so seeds differ "
                "by more than that noise whatever the treatment; tau, I2 and p say no more"
            )
        yield EstimandTable("spread", title, spread, tuple(notes))
    if wider := shown_rows(estimates.generalised, estimates, everything=everything):
        title = "Other examples: the same effects, for examples that are not in the probe"
        general = tuple(_generalised(each, rows.get(_key(each))) for each in wider)
        yield EstimandTable("generalised", title, general)
    if estimates.profiles:
        yield _profile(estimates.profiles, everything=everything)
    if (flow := back_flow_table(estimates, everything=everything)) is not None:
        yield flow
    if (aligned := alignment_table(estimates)) is not None:
        yield aligned


def print_further(out: Console, estimates: EstimateTable, *, everything: bool) -> None:
    """Print all of these tables; or only those that somebody asked for, by option or by plan."""
    for table in further_tables(estimates, everything=everything):
        if everything or table.name in ("generalised", BACK_FLOW, ALIGNMENT):
            print_table(out, table.name, table.rows, title=table.title, notes=table.notes)
    if everything and estimates.persistence:
        table = persistence_table(estimates)
        print_table(out, table.name, table.rows, title=table.title, notes=table.notes)


def _sign_flips(rows: Sequence[SignedEstimate]) -> Iterator[EstimandTable]:
    """The test beside the paired t test that takes no difference for normal."""
    cells = tuple(
        (
            *_named(row),
            fixed(row.d_z),
            p_value(row.t_p),
            drawn_p(row.sign_flip_p, row.sign_flip_kind),
        )
        for row in rows
        if row.sign_flip_p is not None
    )
    if cells:
        title = "Sign-flip test beside the paired t test, before correction"
        yield EstimandTable("sign-flip", title, cells)


def _key(row: _Row | Spread | Generalised) -> _Key:
    return row.perturbation, row.metric, row.variant, row.time


def _equivalence(row: _Row) -> tuple[str, ...]:
    log_p = row.log_equivalence_p if isinstance(row, DistanceEstimate) else None
    return (
        *_named(row),
        number(row.margin),
        p_value(row.equivalence_p),
        p_value(log_p),
        p_value(row.adjusted_equivalence_p),
        said(row),
    )


def _spread(spread: Spread, row: _Row | None) -> tuple[str, ...]:
    return (
        *_named(spread),
        interval(None if row is None else row.interval, spread.metric),
        interval(None if row is None else row.studentised, spread.metric),
        interval(spread.new_seed, spread.metric),
        number(spread.noise_sd),
        number(spread.tau),
        fixed(spread.i_squared),
        p_value(spread.p),
        _q(spread.adjusted_p),
    )


def _generalised(wider: Generalised, row: _Row | None) -> tuple[str, ...]:
    return (
        *_named(wider),
        number(rounded(wider.effect, wider.metric)),
        interval(None if row is None else row.interval, wider.metric),
        interval(wider.interval, wider.metric),
        number(wider.df),
    )


def _profile(rows: Sequence[ProfileRow], *, everything: bool) -> EstimandTable:
    title = "Parts of the probe (exploratory)"
    notes = [_parts_of(rows)]
    shown = list(rows)
    if not everything and len(rows) > _MAX_PROFILE:
        shown = sorted(rows, key=_profile_q)[:_MAX_PROFILE]
        tied = sum(_profile_q(row) <= _profile_q(shown[-1]) for row in rows)
        which = f", the first of {tied} with no larger one" if tied > _MAX_PROFILE else ""
        notes.append(
            f"the {_MAX_PROFILE} rows of {len(rows)} with the smallest q{which}; the rest: "
            "--all, --json"
        )
    cells = tuple(
        (
            as_typed(row.perturbation),
            row.metric,
            row.time,
            row.part,
            number(row.n_examples),
            number(rounded(row.effect, row.metric)),
            interval(row.interval, row.metric),
            p_value(row.p),
            _q(row.adjusted_p),
        )
        for row in shown
    )
    return EstimandTable("profile", title, cells, tuple(notes))


def _profile_q(row: ProfileRow) -> float:
    return 2.0 if row.adjusted_p is None else row.adjusted_p


def _parts_of(rows: Sequence[ProfileRow]) -> str:
    """What the parts of some rows are."""
    there = {row.part.partition(" ")[0] for row in rows}
    return "; ".join(text for part, text in _PARTS.items() if part in there)


def _named(row: _Row | Spread | Generalised) -> tuple[str, str, str]:
    metric = row.metric if row.variant == AS_IS else f"{row.metric} (recal.)"
    return as_typed(row.perturbation), metric, row.time


def _q(value: float | None) -> str:
    return "-" if value is None else f"{p_value(value)} q"
