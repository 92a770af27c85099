"""Folders of pictures and tables: what they may hold is looked at before anything else is done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from auditkit.cli.back_flow_table import ALIGNMENT, BACK_FLOW
from auditkit.cli.estimand_tables import PERSISTENCE
from auditkit.files import store
from auditkit.files.outputs import Output, Recogniser
from auditkit.paper.drawing import MADE_BY, Drawn, to_bytes
from auditkit.paper.report_tables import LATEX_HEAD, ReportTable, Row, csv_head, to_csv, to_latex
from auditkit.records.back_flow import Alignment, BackFlow
from auditkit.records.estimate import (
    ControlLevel,
    DistanceEstimate,
    EstimateTable,
    Persistence,
    SignedEstimate,
)
from auditkit.records.further_estimates import Generalised, ProfileRow, Spread

#: Names of all pictures, and of the tables with the records that they are made of.
FIGURES = (
    *("seeds", "distances", "forest", "curves", "back-flow"),
    *("divergence", "reliability", "loss"),
)
RECORDS = {
    "levels": ControlLevel,
    "distances": DistanceEstimate,
    "effects": SignedEstimate,
    PERSISTENCE: Persistence,
    "spread": Spread,
    "generalised": Generalised,
    "profile": ProfileRow,
    BACK_FLOW: BackFlow,
    ALIGNMENT: Alignment,
}

#: Tables whose numbers stand in the CSV files of others.
WITHOUT_RECORDS = ("equivalence", "sign-flip")

_MAGIC = {"pdf": b"%PDF-", "png": b"\x89PNG"}


class _Folder:
    """A folder with files that an option names; made where there is none.

    As a context it takes back what it made, where nothing came into it.
    """

    def __init__(self, option: str, text: str, names: Iterable[tuple[str, Recogniser]]) -> None:
        folder = Path(text)
        self._missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
        store.make_folder(text)
        self.outputs = {
            name: Output(option, folder / name, is_own, "file") for name, is_own in names
        }
        for output in self.outputs.values():
            output.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for folder in self._missing:
            store.remove_empty_folder(folder)


class FigureFiles(_Folder):
    """The folder of pictures."""

    def __init__(self, text: str) -> None:
        names = [(f"{name}.{form}", _is_figure(form)) for name in FIGURES for form in _MAGIC]
        super().__init__("--figures", text, names)

    def write(self, drawn: Sequence[Drawn]) -> None:
        """Write the pictures as PDF and PNG."""
        for picture in drawn:
            for form in _MAGIC:
                self.outputs[f"{picture.name}.{form}"].write(to_bytes(picture, form))


class TableFiles(_Folder):
    """The folder of tables."""

    def __init__(self, text: str) -> None:
        names = [
            (f"{name}.csv", _begins(",".join(csv_head(kind)))) for name, kind in RECORDS.items()
        ]
        names += [(f"{name}.tex", _begins(LATEX_HEAD)) for name in (*RECORDS, *WITHOUT_RECORDS)]
        super().__init__("--tables", text, names)

    def write(self, tables: Sequence[ReportTable], estimates: EstimateTable) -> None:
        """Write all rows as CSV, and the tables as LaTeX."""
        rows: dict[str, Sequence[Row]] = {
            "levels": estimates.levels,
            "distances": estimates.distances,
            "effects": estimates.signed,
            PERSISTENCE: estimates.persistence,
            "spread": estimates.spreads,
            "generalised": estimates.generalised,
            "profile": estimates.profiles,
            BACK_FLOW: estimates.back_flow,
            ALIGNMENT: estimates.alignments,
        }
        for name, kind in RECORDS.items():
            if rows[name] or name not in {BACK_FLOW, ALIGNMENT}:  # which are of few studies
                self.outputs[f"{name}.csv"].write(to_csv(kind, rows[name]).encode())
        for table in tables:
            self.outputs[f"{table.name}.tex"].write(to_latex(table).encode())


def _is_figure(form: str) -> Recogniser:
    return lambda data: data.startswith(_MAGIC[form]) and MADE_BY.encode() in data


def _begins(text: str) -> Recogniser:
    return lambda data: data.startswith(text.encode())
