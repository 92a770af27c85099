"""Where two traces differ first that come in pieces."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_recordings import Loop, traces_of

from auditkit.diagnose.first_difference import first_mismatch
from auditkit.errors import FormatError
from auditkit.evidence.comparison import compare_traces
from auditkit.records.evidence import Trace


def cut(trace: Trace, *lengths: int) -> list[Trace]:
    """A trace in pieces of so many steps, the rest last."""
    pieces, first = [], trace.first_step
    for length in (*lengths, trace.n_rows):
        last = min(first + length - 1, trace.last_step)
        start, stop = first - trace.first_step, last - trace.first_step + 2
        columns = {}
        for name, column in trace.columns.items():
            cells = bytearray(column[start * 16 : stop * 16])
            if name in ("order", "batch") and last < trace.last_step:
                cells[-16:] = bytes(16)
            columns[name] = bytes(cells)
        losses = bytearray(trace.loss_bits[start * 8 : stop * 8])
        if last < trace.last_step:
            losses[-8:] = bytes(8)
        pieces.append(Trace(first, bytes(losses), columns))
        first = last + 1
        if first > trace.last_step:
            break
    return pieces


def whole(loop: Loop) -> Trace:
    (trace,) = traces_of(loop, 0)
    return trace


@given(
    st.sampled_from([{}, {"order_at": 4}, {"batch_at": 7}, {"state_at": 5}, {"state_at": 10}]),
    st.lists(st.integers(1, 4), max_size=5),
    st.lists(st.integers(1, 4), max_size=5),
)
def test_pieces_part_where_the_whole_does(
    change: dict[str, int], left: list[int], right: list[int]
) -> None:
    one, other = whole(Loop(steps=9)), whole(replace(Loop(steps=9), **change))  # type: ignore[arg-type]
    assert first_mismatch("x", cut(one, *left), cut(other, *right)) == compare_traces(
        "x", one, other
    )


@pytest.mark.parametrize(
    ("left", "right", "step", "kind"),
    [
        (Loop(steps=5), Loop(steps=9), 6, "length"),
        (Loop(steps=9), Loop(steps=5), 6, "length"),
        (Loop(steps=5), Loop(steps=9, state_at=6), 6, "state drift"),
        (Loop(steps=5), Loop(steps=9, state_at=7), 6, "length"),
        (Loop(steps=5), Loop(steps=9, order_at=6), 6, "length"),
        (Loop(steps=5, order_at=5), Loop(steps=9), 5, "order drift"),
    ],
)
def test_a_longer_trace_parts_where_the_shorter_one_ends(
    left: Loop, right: Loop, step: int, kind: str
) -> None:
    mismatch = first_mismatch("x", [whole(left)], [whole(right)])
    assert mismatch is not None
    assert (mismatch.step, mismatch.kind) == (step, kind)


def test_traces_that_begin_elsewhere_are_compared_where_they_overlap() -> None:
    early, late = whole(Loop(steps=9)), cut(whole(Loop(steps=9)), 3)[1]
    mismatch = first_mismatch("x", [early], [late])
    assert mismatch is not None
    assert (mismatch.step, mismatch.kind, mismatch.component) == (1, "length", "steps")
    moved = cut(whole(Loop(steps=9, batch_at=6)), 3)[1]
    mismatch = first_mismatch("x", [early], [moved])
    assert mismatch is not None
    assert (mismatch.step, mismatch.kind) == (6, "data drift")
    mismatch = first_mismatch("x", [cut(early, 3)[0]], [late])
    assert mismatch is not None
    assert mismatch.kind == "length"


def test_a_missing_piece_is_malformed_and_no_difference() -> None:
    pieces = cut(whole(Loop(steps=9)), 3, 3)
    with pytest.raises(FormatError, match="begins at step 7, not at 4"):
        first_mismatch("x", [pieces[0], pieces[2]], [whole(Loop(steps=9))])
