"""The second recipe of numbers a position: those of the first, but for rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from auditkit.program import position_blocks, position_scores
from auditkit.program.position_blocks import compared_columns, own_columns
from auditkit.program.position_scores import Columns, Positions
from auditkit.statistics.metrics import CLIP

DISTANCES = ("tv", "js", "hellinger", "kl")


def scores(seed: int, n_classes: int, n: int = 4, size: float = 3) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return size * torch.randn((2, n // 2, n_classes), generator=draw)


def everywhere(given: Tensor) -> Positions:
    where = torch.ones(given.shape[:2], dtype=torch.bool).nonzero()
    return Positions(where, torch.arange(len(where)) % given.shape[2], probabilities=False)


def extended(given: Tensor) -> NDArray[np.longdouble]:
    """The table that is compared, in more digits than any recipe has."""
    return given.flatten(0, 1).double().softmax(1).float().numpy().astype(np.longdouble)


def exact(control: Tensor, branch: Tensor) -> dict[str, NDArray[np.longdouble]]:
    """The distances from the definitions, where no probability is 0."""
    p, q = extended(control), extended(branch)
    half = (p + q) / 2
    return {
        "tv": np.abs(p - q).sum(axis=1) / 2,
        "js": (p * np.log2(p / half) + q * np.log2(q / half)).sum(axis=1) / 2,
        "hellinger": np.sqrt(np.square(np.sqrt(p) - np.sqrt(q)).sum(axis=1) / 2),
        "kl": np.maximum((p * np.log(p / np.maximum(q, CLIP))).sum(axis=1), 0),
    }


def same(left: Columns, right: Columns) -> bool:
    return left.keys() == right.keys() and all(
        left[name].numpy().tobytes() == right[name].numpy().tobytes() for name in left
    )


@pytest.mark.parametrize("n_classes", [7, 1000, 40_000])
@pytest.mark.parametrize("apart", [1e-3, 0.3, 3, 8])
def test_both_recipes_agree_and_are_exact(n_classes: int, apart: float) -> None:
    control = scores(1, n_classes)
    branch = control + scores(2, n_classes, size=apart)
    own, found = compared_columns(control, branch, everywhere(control))
    first_own, first = position_scores.compared_columns(control, branch, everywhere(control))
    truth = exact(control, branch)
    for name in DISTANCES:
        error = np.abs(found[name].numpy() - truth[name]).max()
        assert error < 1e-12, name
        if apart < 8:  # there the first recipe loses digits, where d is nearly 1
            assert found[name].numpy() == pytest.approx(first[name].numpy(), abs=1e-12), name
    for here, there in ((own, first_own), (found, first)):
        for name in ("predicted", "confidence", "label_probability"):
            assert torch.equal(here[name], there[name]), name
        squares = there["sum_of_squares"].numpy()
        assert here["sum_of_squares"].numpy() == pytest.approx(squares, rel=1e-13)


def without_some(control: Tensor, branch: Tensor) -> None:
    """Scores whose probabilities underflow to 0, on either side or both."""
    control[..., 0] = branch[..., 0] = -1e4
    control[..., 1] -= 1e4
    branch[..., 2] -= 1e4
    branch[1, 1] = control[1, 1]


@pytest.mark.parametrize("n_classes", [6, 40_000])
def test_a_class_that_a_side_does_not_give(n_classes: int) -> None:
    control, branch = scores(1, n_classes), scores(2, n_classes)
    without_some(control, branch)
    _, found = compared_columns(control, branch, everywhere(control))
    _, first = position_scores.compared_columns(control, branch, everywhere(control))
    for name in DISTANCES:
        assert found[name].numpy() == pytest.approx(first[name].numpy(), rel=1e-12), name
        assert found[name][-1] == 0


def test_a_position_is_looked_at_alike_in_any_company() -> None:
    control, branch = scores(1, 50, 20), scores(2, 50, 20)
    control[0, 3, 7] = branch[1, 2, 9] = -1e4  # one row with a 0, others with none
    branch[0, 1] = control[0, 1]
    branch[0, 5, 4] = control[0, 5, 4] - 40
    every = everywhere(control)
    own, found = compared_columns(control, branch, every)
    for number in range(len(every.where)):
        one = slice(number, number + 1)
        alone = Positions(every.where[one], every.labels[one], probabilities=False)
        here, there = compared_columns(control, branch, alone)
        assert same(here, {name: column[one] for name, column in own.items()})
        assert same(there, {name: column[one] for name, column in found.items()})


@pytest.mark.parametrize("n_classes", [6, 40_000])
def test_what_a_branch_gives_is_the_same_with_and_without_a_control_beside_it(
    n_classes: int,
) -> None:
    control, branch = scores(1, n_classes), scores(2, n_classes)
    here, there = compared_columns(control, branch, everywhere(control))
    assert same(own_columns(control, everywhere(control)), here)
    alone = own_columns(branch, everywhere(branch))
    assert same(alone, {name: there[name] for name in alone})


def test_equal_scores_are_exactly_no_distance_apart() -> None:
    control, branch = scores(1, 9), scores(1, 9)
    _, found = compared_columns(control, branch, everywhere(control))
    zero = torch.zeros(4, dtype=torch.float64)
    assert same({name: found[name] for name in DISTANCES}, dict.fromkeys(DISTANCES, zero))
    branch[0, 0, 0] += 1  # and beside a position that is another
    _, found = compared_columns(control, branch, everywhere(control))
    assert same({name: found[name][1:] for name in DISTANCES}, dict.fromkeys(DISTANCES, zero[1:]))


def test_positions_that_do_not_follow_each_other() -> None:
    control, branch = scores(1, 9, 8), scores(2, 9, 8)
    every = everywhere(control)
    some = torch.tensor([0, 2, 3, 7])
    few = Positions(every.where[some], every.labels[some], probabilities=False)
    _, found = compared_columns(control, branch, every)
    _, picked = compared_columns(control, branch, few)
    assert same(picked, {name: column[some] for name, column in found.items()})


def test_scores_that_are_a_view_are_looked_at_in_place() -> None:
    control, branch = scores(1, 9, 8), scores(2, 9, 8)
    every = everywhere(control[:, 1:])
    here = compared_columns(control[:, 1:], branch[:, 1:], every)
    there = compared_columns(control[:, 1:].contiguous(), branch[:, 1:].contiguous(), every)
    turned = compared_columns(control[:, 1:].mT.contiguous().mT, branch[:, 1:], every)
    assert all(same(left, right) for left, right in zip(here, there, strict=True))
    assert all(same(left, right) for left, right in zip(turned, there, strict=True))


@pytest.mark.parametrize("q", [CLIP, 0.9 * CLIP, 1.1 * CLIP, 1e-30, 0.0])
def test_what_is_below_the_clip_counts_as_the_clip(q: float) -> None:
    control = torch.tensor([[[0.25, 0.25, 0.5]]])
    branch = torch.tensor([[[q, 0.5, 0.5 - q]]])
    one = torch.zeros((1, 2), dtype=torch.int64)
    _, found = compared_columns(control, branch, Positions(one, one[0, :1], probabilities=True))
    there = max(float(np.float32(q)), CLIP)
    truth = 0.25 * np.log(0.25 / there) + 0.25 * np.log(0.25 / 0.5)
    assert found["kl"].item() == pytest.approx(truth, abs=1e-12)


def test_no_float32_lies_between_the_clip_and_what_stands_for_it() -> None:
    here = position_blocks._CLIP
    assert float(here) < CLIP < float(np.nextafter(here, np.float32(1)))


def test_probabilities_are_taken_as_they_are_and_labels_may_be_missing() -> None:
    given, every = scores(1, 9), everywhere(scores(1, 9))
    there = own_columns(
        given.double().softmax(dim=2), Positions(every.where, every.labels, probabilities=True)
    )
    assert same(own_columns(given, every), there)
    nobody = Positions(every.where, every.labels[:0], probabilities=False)
    assert "label_probability" not in own_columns(given, nobody)


def test_what_is_not_finite_is_seen() -> None:
    control, broken = scores(1, 9), scores(2, 9)
    broken[0, 1, 3] = torch.nan
    _, found = compared_columns(control, broken, everywhere(control))
    for name in ("sum_of_squares", "confidence", "tv", "js"):
        assert found[name].isfinite().tolist() == [True, False, True, True], name


@pytest.mark.parametrize("side", [0, 1])
def test_beside_what_is_not_a_number_every_other_position_is_as_without_it(side: int) -> None:
    sides = [scores(1, 9), scores(2, 9)]
    sides[1][..., 4] = -90  # below the clip in every row
    every = everywhere(sides[0])
    wanted = compared_columns(sides[0], sides[1], every)
    sides[side][0, 1, 3] = torch.nan
    found = compared_columns(sides[0], sides[1], every)
    rest = torch.tensor([0, 2, 3])
    for before, after in zip(wanted, found, strict=True):
        assert same(*({name: column[rest] for name, column in x.items()} for x in (before, after)))
    assert all(found[1][name][1].isnan() for name in DISTANCES)
    assert found[side]["confidence"][1].isnan()


def test_a_part_without_positions_gives_nothing() -> None:
    given, every = scores(1, 9), everywhere(scores(1, 9))
    nowhere = Positions(every.where[:0], every.labels[:0], probabilities=False)
    assert own_columns(given, nowhere) == {}
    assert compared_columns(given, scores(2, 9), nowhere) == ({}, {})


def test_no_sum_is_so_long_that_a_library_splits_it_over_threads() -> None:
    assert position_blocks._SUMMED < 10_000  # OpenBLAS: more are split
    a = np.arange(3 * 8192 + 5, dtype=np.float64)[None] / 1e4
    block, out = position_blocks._block(1, slice(0, a.size), a), np.zeros((1, 4))
    block.dot(0, 0, out)
    parts = [np.vecdot(a[0, k : k + 8192], a[0, k : k + 8192]) for k in range(0, a.size, 8192)]
    assert out[0].tolist() == parts
    summed = position_blocks._summed(out[None])
    assert summed[0, 0] == parts[0] + parts[1] + parts[2] + parts[3]


def plainly(p: NDArray[np.float32], q: NDArray[np.float32]) -> dict[str, float]:
    """One position by the second recipe, as its first build computed it."""

    def dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        found = np.vecdot(a[:8192], b[:8192])
        for k in range(8192, len(a), 8192):
            found += np.vecdot(a[k : k + 8192], b[k : k + 8192])
        return float(found)

    sums = [0.0] * 6
    for start in range(0, len(p), 32768):
        here, there = (each[start : start + 32768].astype(np.float64) for each in (p, q))
        s, g = here + there, here - there
        up, down = np.log1p(g / s), np.log1p(-(g / s))
        both, log = up + down, up - down
        assert both.min() >= -6
        pairs = ((there, there), (s, both), (g, log), (s, log), (s, np.expm1(both / 2)))
        for number, (a, b) in enumerate(pairs):
            sums[number] += dot(a, b)
        sums[5] += np.abs(g).sum()
    squares, first, second, third, roots, gaps = sums
    return {
        "sum_of_squares": squares,
        "tv": gaps / 2,
        "js": max(first + second, 0) / (4 * np.log(2)),
        "hellinger": np.sqrt(-roots / 2),
        "kl": max((third + second) / 2, 0),
    }


@pytest.mark.parametrize("n_classes", [7, 8192, 33_000, 70_000])
def test_the_second_recipe_s_bits_are_those_of_its_first_build(
    n_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = scores(1, n_classes, n=6, size=1)  # none is below KL's clip
    branch = control + scores(2, n_classes, n=6, size=0.3)
    own, found = compared_columns(control, branch, everywhere(control))
    tables = [each.flatten(0, 1).double().softmax(1).float().numpy() for each in (control, branch)]
    for number, (p, q) in enumerate(zip(*tables, strict=True)):
        for name, value in plainly(p, q).items():
            assert found[name][number].item() == value, name
    for n_together in (1, 4):  # of it, how many are looked at together is no part
        monkeypatch.setattr(position_blocks, "_ELEMENTS", n_together * position_blocks._BLOCK)
        again = compared_columns(control, branch, everywhere(control))
        assert same(own, again[0])
        assert same(found, again[1])
