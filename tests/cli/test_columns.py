"""Tables that fit: what gives way, in which order, and what never does."""

from __future__ import annotations

from auditkit.cli.columns import Column, fit, fold, least_width, natural_width

NAMES = Column("name", ("first one", "first one", "second"), is_whole=True)
NUMBERS = Column("x", ("0.123", "12", "-"), is_number=True, is_whole=True)
TEXT = Column("what", ("some words that can be folded", "short", ""))
COLUMNS = (NAMES, NUMBERS, TEXT)


def test_what_fits_is_left_alone() -> None:
    fitted = fit(COLUMNS, natural_width(COLUMNS), ("x",), is_grouped=True)
    assert list(fitted.lines()) == [
        "name           x  what",
        "---------  -----  -----------------------------",
        "first one  0.123  some words that can be folded",
        "first one     12  short",
        "second         -",
    ]
    assert (fitted.above, fitted.left_out) == ((), ())


def test_the_first_column_moves_above_its_rows_before_anything_is_folded() -> None:
    lines = list(fit(COLUMNS, natural_width(COLUMNS) - 1, ("x",), is_grouped=True).lines())
    assert lines == [
        "    x  what",
        "-----  -----------------------------",
        "first one",
        "0.123  some words that can be folded",
        "   12  short",
        "second",
        "    -",
    ]


def test_text_is_folded_between_words_before_a_column_is_left_out() -> None:
    fitted = fit((NUMBERS, TEXT), 20, ("x",))
    assert fitted.left_out == ()
    assert list(fitted.lines())[2:5] == [
        "0.123  some words",
        "       that can be",
        "       folded",
    ]


def test_columns_are_left_out_in_their_order_and_named() -> None:
    wide = tuple(Column(name, ("0" * 9,), is_number=True, is_whole=True) for name in "abc")
    assert fit(wide, 31, ("b", "a")).left_out == ()
    assert fit(wide, 30, ("b", "a")).left_out == ("b",)
    fitted = fit(wide, 19, ("b", "a"))
    assert fitted.left_out == ("b", "a")
    assert list(fitted.lines()) == ["        c", "---------", "000000000"]


def test_no_number_is_ever_cut() -> None:
    lines = list(fit((NUMBERS, TEXT), 3).lines())
    assert any("0.123" in line for line in lines)


def test_no_line_is_wider_than_the_terminal() -> None:
    long = Column("what", ("x" * 500, "a b " * 100, "\u6f22" * 70))
    for width in (24, 40, 77):
        columns = (NUMBERS, long, TEXT)
        assert least_width(columns) <= 33
        lines = list(fit(columns, max(width, 33)).lines())
        assert max(sum(2 if c == "\u6f22" else 1 for c in line) for line in lines) <= max(width, 33)


def test_the_widest_text_gives_way_first() -> None:
    fitted = fit((Column("a", ("x" * 40,)), Column("b", ("y" * 15,))), 45)
    assert fitted.widths == (28, 15)


def test_a_text_is_folded_whole() -> None:
    assert fold("", 5) == [""]
    assert fold("ab cd ef", 5) == ["ab cd", "ef"]
    assert fold("abcdefgh ij", 5) == ["abcde", "fgh", "ij"]
    text = "SHA256:" + "0123456789" * 5
    assert "".join(fold(text, 12)) == text
