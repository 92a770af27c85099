"""Check 5, the other half: seeds that went through the same training are one seed.

Each of these is proof by itself, since two seeds cannot come to it by chance:

* the trained parameters at T, or what the optimizer added up of their gradients (which leaves out
  parameters that never get one);
* the loss of every step;
* the probe table at T, where it says anything: not one of zeros and ones only, which any two
  models give that fit the probe, nor one of equal rows;
* the order, where the sampler draws it at random, and there are too many orders for a coincidence.
  An order that the program fixes (``shuffle=False``, a sampler of its own) is the same for all
  seeds of an honest study, whose seeds then differ in initialisation and dropout: it says nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from auditkit.errors import AuditError
from auditkit.evidence.reader import SeedEvidence
from auditkit.formats.outcome_names import REAL, column_name, table_name
from auditkit.records.evidence import blocks
from auditkit.records.replication import is_drawn, training_marks
from auditkit.records.report import Finding

#: Losses that a run must have before equal ones are no coincidence.
_MIN_LOSSES = 3

#: Bits of chance that an order must hold before an equal one is no coincidence.
_MIN_ORDER_BITS = 40.0

_ORDER = "order"


class Replication:
    """Looks at one seed after the other; keeps digests of them only."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], int] = {}

    def findings(self, seed: SeedEvidence) -> Iterator[Finding]:
        """Whether a seed is one of those before it, and by what."""
        number = seed.record.seed
        same: dict[int, list[str]] = {}
        for name, mark in _marks(seed):
            first = self._first.setdefault((name, mark), number)
            if first != number and (name != _ORDER or _order_bits(seed) >= _MIN_ORDER_BITS):
                same.setdefault(first, []).append(name)
        for first, names in same.items():
            yield Finding(
                f"seeds {first} and {number} are one seed: their controls have the same "
                f"{', '.join(names)}",
                where=f"seed {number}",
            )


def _marks(seed: SeedEvidence) -> Iterator[tuple[str, str]]:
    record = seed.record
    yield from training_marks(record).items()
    # A file that cannot be read is for checks 3 and 4 to report.
    with contextlib.suppress(AuditError):
        digest, values = hashlib.sha256(), np.empty(0)
        for losses in _losses(seed):
            digest.update(losses)
            values = _several(np.append(values, np.frombuffer(losses, dtype="<f8")))
        if len(values) == _MIN_LOSSES:
            yield "losses", digest.hexdigest()
    with contextlib.suppress(AuditError):
        tables = seed.control_outcome.tables
        for probe in seed.run.manifest.program.observed.probes:
            name = table_name("T", probe)
            table, squares = tables.get(name), tables.get(column_name(name, "sum_of_squares"))
            what = f"outcome tables of {probe}" if probe else "outcome tables"
            if table is not None and _says_something(table):
                yield what, hashlib.sha256(table.tobytes()).hexdigest()
            if squares is not None and _differs(squares):
                yield what, hashlib.sha256(squares.tobytes()).hexdigest()
            for kind in REAL:
                real = tables.get(column_name(name, kind))
                began = tables.get(column_name(table_name("t0", probe), kind))
                if real is not None and _was_learned(real, began):
                    yield what, hashlib.sha256(real.tobytes()).hexdigest()
    if is_drawn(record.data.loader):
        yield _ORDER, record.order_sha256


def _losses(seed: SeedEvidence) -> Iterator[bytes]:
    """The losses of all steps of a seed's control, and of its trunk before them, in parts."""
    for trace in (seed.trunk, seed.control):
        for begin, end in blocks(trace.first_step, trace.last_step + 1):
            yield trace.losses(begin, end)


def _several(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """As many different finite ones of them as it takes for equal ones to be no coincidence."""
    rest, found = losses[np.isfinite(losses)], list[float]()
    while len(rest) and len(found) < _MIN_LOSSES:
        found.append(float(rest[0]))
        rest = rest[rest != rest[0]]  # numpy.unique would load numpy.ma
    return np.array(found)


def _says_something(table: NDArray[np.float32]) -> bool:
    """Whether a probe table is more than what many models give."""
    if not np.isfinite(table).all():
        return False
    is_split = ((table > 0) & (table < 1)).any()
    return bool(is_split and (table != table[0]).any())


def _was_learned(real: NDArray[np.float32], began: NDArray[np.float32] | None) -> bool:
    """The same of a table of real numbers: rows that differ, and are not what they were at t0."""
    is_split = np.isfinite(real).all() and (real != real[0]).any()
    return bool(is_split and began is not None and real.tobytes() != began.tobytes())


def _differs(squares: NDArray[np.float64]) -> bool:
    """The same of a table by position: not one of ones, nor of equal numbers."""
    return bool(np.isfinite(squares).all() and ((squares < 1) & (squares != squares[0])).any())


def _order_bits(seed: SeedEvidence) -> float:
    """About how many bits of chance an order holds: 0 where its epochs only ascend."""
    pairs = np.empty((0, 2), np.int64)
    with contextlib.suppress(AuditError):
        pairs = seed.order.flat.pairs
    if not len(pairs):
        return 0.0
    if (np.lexsort((pairs[:, 1], pairs[:, 0])) == np.arange(len(pairs))).all():
        return 0.0
    bits = 0.0
    for epoch in np.unique(pairs[:, 0]):
        drawn = np.unique(pairs[pairs[:, 0] == epoch, 1])
        bits += math.lgamma(len(drawn) + 1) / math.log(2)
    return bits
