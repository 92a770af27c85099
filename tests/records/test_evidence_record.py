from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from auditkit.records.digest import ABSENT
from auditkit.records.evidence import CONSUMED, Difference, Trace

NAMES = ("order", "batch", "params", "batchnorm", "rng/torch")

# Few distinct cells, so that rows are often equal.
cells = st.sampled_from([ABSENT, b"a" * 16, b"a" * 15 + b"b", b"b" + b"a" * 15])
losses = st.sampled_from([bytes(8), b"l" * 8, b"l" * 7 + b"m"])


@st.composite
def traces(draw: st.DrawFn, first: st.SearchStrategy[int] = st.integers(1, 2)) -> Trace:  # noqa: B008
    rows = draw(st.integers(1, 6))
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    return Trace(
        draw(first),
        b"".join(draw(losses) for _ in range(rows)),
        {name: b"".join(draw(cells) for _ in range(rows)) for name in names},
    )


@st.composite
def near_pairs(draw: st.DrawFn) -> tuple[Trace, Trace]:
    """A trace and one that differs in a few cells, perhaps in length."""
    left = draw(traces())
    columns = {name: bytearray(column[:]) for name, column in left.columns.items()}
    loss = bytearray(left.loss_bits[:])
    for _ in range(draw(st.integers(0, 2))):
        row = draw(st.integers(0, left.n_rows - 1))
        name = draw(st.sampled_from([*columns, "loss"]))
        if name == "loss":
            loss[row * 8] ^= 1
        else:
            columns[name][row * 16 + draw(st.integers(0, 15))] ^= 1
    rows = draw(st.integers(1, left.n_rows))
    cut = {name: bytes(column[: rows * 16]) for name, column in columns.items()}
    return left, Trace(left.first_step, bytes(loss[: rows * 8]), cut)


def naive_first_difference(left: Trace, right: Trace) -> Difference | None:
    """Row by row, cell by cell."""
    if left.first_step != right.first_step:
        return Difference(min(left.first_step, right.first_step), ("steps",))

    def row(trace: Trace, n: int) -> dict[str, bytes]:
        found = {name: trace.columns[name][n * 16 : n * 16 + 16] for name in trace.columns}
        shown = {name: cell for name, cell in found.items() if cell != ABSENT}
        return {**shown, "loss": trace.loss_bits[n * 8 : n * 8 + 8]}

    for n in range(max(left.n_rows, right.n_rows)):
        if n >= min(left.n_rows, right.n_rows):
            return Difference(left.first_step + n, ("steps",))
        here, there = row(left, n), row(right, n)
        wrong = {name for name in {*here, *there} if here.get(name) != there.get(name)}
        if wrong:
            consumed = sorted(wrong & set(CONSUMED))
            state = sorted(wrong - {*CONSUMED, "loss"})
            last = ["loss"] if "loss" in wrong else []
            return Difference(left.first_step + n, (*consumed, *state, *last))
    return None


@given(near_pairs() | st.tuples(traces(), traces()))
def test_the_first_difference_is_the_naive_one(pair: tuple[Trace, Trace]) -> None:
    left, right = pair
    expected = naive_first_difference(left, right)
    assert left.first_difference(right) == expected
    assert right.first_difference(left) == expected


@given(traces())
def test_a_trace_equals_itself_with_and_without_columns_of_zeros(trace: Trace) -> None:
    columns = {name: column for name, column in trace.columns.items() if any(column[:])}
    zeros = {"extras/x": ABSENT * trace.n_rows}
    same = Trace(trace.first_step, trace.loss_bits, {**columns, **zeros})
    assert trace.first_difference(trace) is None
    assert trace.first_difference(same) is None


@given(traces())
def test_cells_are_the_columns_bytes(trace: Trace) -> None:
    for name, column in trace.columns.items():
        steps = range(trace.first_step, trace.last_step + 2)
        assert b"".join(trace.cell(step, name) for step in steps) == column
        assert trace.cell(trace.first_step, "none") == ABSENT
    found = (trace.loss(step) for step in range(trace.first_step, trace.last_step + 2))
    assert b"".join(found) == trace.loss_bits


def test_rows_of_different_steps_can_be_compared() -> None:
    trunk = Trace(1, bytes(24), {"params": b"a" * 16 + b"b" * 16 + b"c" * 16})
    control = Trace(3, bytes(16), {"params": b"c" * 16 + b"d" * 16, "order": b"o" * 32})
    assert trunk.row_difference(3, control) == ["order"]
    assert trunk.row_difference(2, control, 3) == ["order", "params"]
    assert (trunk.n_rows, trunk.last_step, control.last_step) == (3, 2, 3)


def test_what_was_consumed_is_named_first_and_the_loss_last() -> None:
    columns = dict.fromkeys(("batch", "a", "order", "z"), b"x" * 16)
    left, right = Trace(1, b"l" * 8, columns), Trace(1, bytes(8), {})
    assert left.first_difference(right) == Difference(1, ("batch", "order", "a", "z", "loss"))
