from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace

import pytest
from checklist_example import example_estimates
from report_reading import named, parsed, words

from auditkit.errors import UsageError
from auditkit.paper import drawing
from auditkit.paper.drawing import Drawn, label, to_bytes, to_svg
from auditkit.paper.pictures import loss_pictures, study_pictures
from auditkit.paper.style import INK
from auditkit.records.estimate import UNDEVELOPED

FORMS = ("svg", "pdf", "png")


def forest() -> Drawn:
    return next(drawn for drawn in study_pictures(example_estimates()) if drawn.name == "forest")


def in_svg(drawn: Drawn) -> set[str]:
    """Texts of a picture."""
    tree = parsed(f"<!DOCTYPE html><title>x</title>{to_svg(drawn)}")
    return {words(node) for node in named(tree, "text")}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_picture_has_the_same_bytes_whatever_the_user_has_set(form: str) -> None:
    before = to_bytes(forest(), form)
    library = importlib.import_module("matplotlib")
    with library.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        assert to_bytes(forest(), form) == before
        assert library.rcParams["font.size"] == 30  # and his settings stay
    assert b"Date" not in before


def test_text_is_text_and_has_the_colour_of_the_page() -> None:
    found = in_svg(forest())
    assert {"momentum-reset", "order-reverse", "Excess over the placebo floor", "t0+W"} <= found
    assert "currentColor" in to_svg(forest())
    assert INK not in to_svg(forest())


def test_names_are_no_formulas_and_need_no_font() -> None:
    estimates = example_estimates()
    rows = [row for row in estimates.distances if row.perturbation == "momentum-reset"]
    odd = [type(row)(**{**vars(row), "perturbation": "$\\frac{x}$"}) for row in rows]
    table = type(estimates)(**{**vars(estimates), "distances": tuple(odd)})
    for drawn in study_pictures(table):
        if drawn.name == "forest":
            assert "$\\frac{x}$" in in_svg(drawn)
    assert label("\u30c6\u30b9\u30c8") == "\\u30c6\\u30b9\\u30c8"
    assert label("x" * 200).endswith("\n...")
    assert label("adam-reset:moments=mv,step=reset") == "adam-reset:moments=mv,\nstep=reset"


def test_each_picture_has_the_rows_that_it_says() -> None:
    pictures = {drawn.name: drawn for drawn in study_pictures(example_estimates())}
    assert list(pictures) == ["seeds", "distances", "forest"]
    assert {"placebo floor", "another seed", "treatment"} <= in_svg(pictures["distances"])


def test_values_that_do_not_exist_are_left_out() -> None:
    estimates = example_estimates()
    bare = [
        type(row)(**{**vars(row), "interval": None, "excess": None, "floor": None, "rho": None})
        for row in estimates.distances
    ]
    table = type(estimates)(**{**vars(estimates), "distances": tuple(bare)})
    assert "forest" not in {drawn.name for drawn in study_pictures(table)}
    for drawn in study_pictures(table):
        to_bytes(drawn, "png")


def test_a_long_curve_keeps_its_peaks() -> None:
    steps = list(range(100_000))
    values = [1.0] * 100_000
    values[54_321] = 9.0
    (drawn,) = loss_pictures({"loss, rank 0": (steps, values)})
    svg = to_bytes(drawn, "svg")
    assert len(svg) < 100_000
    assert b"loss, rank 0" in svg
    assert not list(loss_pictures({"loss": ([], [])}))


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs matplotlib.*not installed") as caught:
        drawing.require_matplotlib()
    assert "auditkit[report]" in str(caught.value)


def test_a_caption_says_what_its_picture_cannot_show() -> None:
    estimates = example_estimates()
    captions = {d.name: d.caption for d in study_pictures(estimates)}
    assert not any("Floor not" in text or "Without a" in text for text in captions.values())
    assert not any("Fewer than" in text for text in captions.values())
    (first, second, *_) = estimates.distances
    rows = (
        replace(first, excess=None, exactly_zero=True, n=2),
        replace(second, notes=(UNDEVELOPED,), n=2),
        replace(second, perturbation="b", excess=None, n=0),
    )
    told = {d.name: d.caption for d in study_pictures(replace(estimates, distances=rows))}
    zero = f"Without a marker: {first.perturbation} at t0+W: exactly 0 (bit-identical)."
    assert zero in told["forest"]
    assert "Without a marker: b at T: no pair, or no placebo, that stands." in told["forest"]
    for name in ("seeds", "forest"):
        assert "Fewer than 3 pairs of seeds: values only" in told[name]
    for name in ("seeds", "distances", "forest"):
        assert "Floor not developed at T" in told[name]
