"""The report of a verification as a program or a notebook wants it."""

from __future__ import annotations

import html
import importlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from auditkit.errors import UsageError
from auditkit.formats import canonical
from auditkit.records.estimate import DistanceEstimate, Interval, SignedEstimate
from auditkit.records.perturbation_spec import as_typed
from auditkit.records.report import VerificationReport

if TYPE_CHECKING:
    import pandas

#: Columns of an estimate that are lists, and that a row a seed unfolds.
_PER_SEED = ("seeds", "per_seed", "floor_per_seed")

#: Columns of an estimate that are intervals, or None.
_INTERVALS = ("interval", "studentised")

#: Estimates of nothing, for the columns of a table without rows.
_EXAMPLES = (
    SignedEstimate("", "", "", "", "", seeds=(0,), per_seed=(0.0,), n=1, n_left_out=0),
    DistanceEstimate(
        *("", "", "", "", ""),
        seeds=(0,),
        per_seed=(0.0,),
        floor_per_seed=(0.0,),
        n=1,
        n_with_floor=1,
        n_left_out=0,
    ),
)

#: Checks that a warning names.
_MOST_CHECKS = 4

_PANDAS = "pandas"

#: Columns of the table of estimates in a notebook, as the records and as people call them.
_SHOWN = {
    "perturbation": "perturbation",
    "metric": "metric",
    "variant": "variant",
    "time": "time",
    "ate": "ATE",
    "excess": "excess",
    "adjusted_p": "adjusted p",
    "verdict": "verdict",
}


@dataclass(frozen=True)
class Report(VerificationReport):
    """Everything that ``auditkit verify`` has to say: what its ``--json`` writes.

    It is true where nothing is wrong: ``if auditkit.verify(...)``. The fields are those of
    ``report.schema.json``.
    """

    def to_json(self) -> str:
        """The report as ``auditkit verify --json`` writes it, for :func:`auditkit.load_report`."""
        return canonical.encode(self).decode("ascii")

    def to_dataframe(self, *, per_seed: bool = False) -> pandas.DataFrame:
        """The estimates as a table; empty, with a warning that says why, where there are none.

        Args:
            per_seed: Whether every seed has a row of its own, with the columns ``seed``, ``value``
                and, of distances, ``seed_floor``; else every estimate has one row.

        Returns:
            The columns are the fields of an estimate, ``kind`` (``signed`` or ``distance``) before
            them and ``typed`` (the perturbation as a plan has it) after them; an interval is
            ``interval_low``, ``interval_high`` and ``interval_level``. An empty table has them,
            too.

        Warns:
            UserWarning: When the report has no estimates, naming the checks that were not passed.

        Raises:
            UsageError: When pandas is not installed.
        """
        table = _load_pandas()
        rows = () if self.estimates is None else self.estimates.rows
        unfold = _rows_by_seed if per_seed else _row
        if not rows:
            warnings.warn(f"the table is empty: {self._why_empty()}", stacklevel=2)
        shown = [row for item in rows or _EXAMPLES for row in unfold(item)]
        frame: pandas.DataFrame = table.DataFrame(shown)
        numbers = [name for name in frame.columns if _is_number(frame[name])]
        return frame.astype(dict.fromkeys(numbers, float)).iloc[: len(shown) if rows else 0]

    def _why_empty(self) -> str:
        """Which checks stand in the way of estimates, in the report's own words."""
        *before, last = self.checks
        texts = [
            f"check {check.number} {check.name} {check.status}: {check.summary}"
            for check in (last, *before)
            if check.status != "passed"
        ]
        return "; ".join(texts[:_MOST_CHECKS])

    def _repr_html_(self) -> str:
        """The report in a notebook; all text in it is escaped."""
        facts = (
            ("verdict", f"{self.verdict} (exit {self.exit_code})"),
            ("trust", self.trust),
            ("signed by", self.signed_by or "nobody trusted"),
            ("replay", self.replay),
            ("manifest sha256", self.manifest_sha256),
        )
        checks = ((str(c.number), c.name, c.status, c.summary) for c in self.checks)
        parts = [
            _table((), facts),
            _table(("#", "check", "result", "what"), checks),
            *(
                f"<p>{_escaped(f'check {c.number}: {f}')}</p>"
                for c in self.checks
                for f in c.findings
            ),
        ]
        if self.estimates is not None:
            cells = (
                tuple(_cell(getattr(row, name, None)) for name in _SHOWN)
                for row in self.estimates.rows
            )
            parts.append(_table(tuple(_SHOWN.values()), cells))
        return "\n".join(parts)


def as_report(report: VerificationReport) -> Report:
    """The same report, with what :class:`Report` adds."""
    return Report(**{field.name: getattr(report, field.name) for field in fields(report)})


def _load_pandas() -> Any:
    try:
        return importlib.import_module(_PANDAS)
    except ModuleNotFoundError as error:
        raise UsageError(
            "Report.to_dataframe needs pandas, which is not installed", hint="pip install pandas"
        ) from error


def _is_number(column: Iterable[object]) -> bool:
    """Whether a column holds numbers that may be missing, and no whole numbers only."""
    return all(value is None or isinstance(value, float) for value in column)


def _row(estimate: SignedEstimate | DistanceEstimate) -> Iterator[dict[str, object]]:
    """One row: plain values, an interval by its ends."""
    typed = as_typed(estimate.perturbation)
    yield {"kind": _kind(estimate), **_flat(asdict(estimate)), "typed": typed}


def _rows_by_seed(estimate: SignedEstimate | DistanceEstimate) -> Iterator[dict[str, object]]:
    (whole,) = _row(estimate)
    kept = {name: value for name, value in whole.items() if name not in _PER_SEED}
    floors: Iterable[float | None] = getattr(estimate, "floor_per_seed", (None,) * estimate.n)
    for seed, value, floor in zip(estimate.seeds, estimate.per_seed, floors, strict=True):
        yield {**kept, "seed": seed, "value": value, "seed_floor": floor}


def _kind(estimate: SignedEstimate | DistanceEstimate) -> str:
    return "signed" if isinstance(estimate, SignedEstimate) else "distance"


def _flat(values: Mapping[str, object]) -> dict[str, object]:
    """Intervals as columns of their own, whether there is one or not."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if name in _INTERVALS:
            ends = value if isinstance(value, dict) else {}
            found |= {f"{name}_{part.name}": ends.get(part.name) for part in fields(Interval)}
        else:
            found[name] = value
    return found


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{_escaped(text)}</th>" for text in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{_escaped(text)}</td>" for text in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
