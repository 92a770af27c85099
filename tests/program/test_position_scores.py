from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from auditkit.program import position_scores
from auditkit.program.position_scores import Positions, compared_columns, own_columns
from auditkit.statistics import metrics

SHAPE = (3, 4, 6)
LABELS = torch.tensor([0, 5, 1, 2, 3])
WHERE = torch.tensor([[0, 0], [0, 3], [1, 1], [2, 0], [2, 2]])
POSITIONS = Positions(WHERE, LABELS, probabilities=False)


def scores(seed: int) -> Tensor:
    return 3 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def table(given: Tensor) -> NDArray[np.float32]:
    """The whole table, as it is kept of a small probe."""
    rows = given[WHERE[:, 0], WHERE[:, 1]].double()
    return rows.softmax(dim=1).float().numpy()


def extreme() -> tuple[Tensor, Tensor]:
    """Scores whose probabilities underflow to 0, on either side or both."""
    here, there = scores(1), scores(2)
    here[..., 0] = there[..., 0] = -1e4
    here[..., 1] -= 1e4
    there[..., 2] -= 1e4
    there[2, 2] = here[2, 2]
    return here, there


@pytest.mark.parametrize("elements", [1, 13, 2**18])
@pytest.mark.parametrize("pair", [(scores(1), scores(2)), extreme()], ids=["plain", "extreme"])
def test_a_mean_over_positions_is_the_metric_of_the_whole_table(
    pair: tuple[Tensor, Tensor], elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(position_scores, "_ELEMENTS", elements)
    control, branch = pair
    own, found = compared_columns(control, branch, POSITIONS)
    p, q, labels = table(control), table(branch), LABELS.numpy()
    for name, distance in (
        ("tv", metrics.tv),
        ("js", metrics.js),
        ("hellinger", metrics.hellinger),
        ("kl", metrics.kl),
    ):
        assert found[name].mean().item() == pytest.approx(distance(p, q), rel=1e-12), name
    for columns, whole in ((own, p), (found, q)):
        assert columns["confidence"].numpy().tobytes() == whole.max(axis=1).tobytes()
        assert columns["predicted"].tolist() == whole.argmax(axis=1).tolist()
        of_label = whole[np.arange(len(labels)), labels]
        assert columns["label_probability"].numpy().tobytes() == of_label.tobytes()
        squares = np.square(whole.astype(float)).sum(axis=1)
        assert columns["sum_of_squares"].numpy() == pytest.approx(squares, rel=1e-12)


def test_what_a_branch_gives_is_the_same_with_and_without_a_control_beside_it() -> None:
    alone = own_columns(scores(2), POSITIONS)
    _, beside = compared_columns(scores(1), scores(2), POSITIONS)
    assert all(torch.equal(alone[name], beside[name]) for name in alone)


def test_equal_scores_are_exactly_no_distance_apart() -> None:
    _, found = compared_columns(scores(1), scores(1).clone(), POSITIONS)
    assert not any(found[name].any() for name in ("tv", "js", "hellinger", "kl"))


def test_of_equal_probabilities_the_first_is_predicted() -> None:
    assert own_columns(torch.zeros(SHAPE), POSITIONS)["predicted"].tolist() == [0] * 5


def test_without_labels_there_is_no_label_probability() -> None:
    nobody = Positions(WHERE, torch.empty(0, dtype=torch.int64), probabilities=False)
    assert "label_probability" not in own_columns(scores(1), nobody)


def test_probabilities_are_taken_as_they_are() -> None:
    given = scores(1).double().softmax(dim=2)
    there = own_columns(given, Positions(WHERE, LABELS, probabilities=True))
    here = own_columns(scores(1), POSITIONS)
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_what_is_not_finite_is_seen() -> None:
    broken = scores(1)
    broken[1, 1, 3] = torch.nan
    found = own_columns(broken, POSITIONS)
    assert found["sum_of_squares"].isfinite().tolist() == [True, True, False, True, True]


def test_a_part_without_positions_gives_nothing() -> None:
    nowhere = Positions(WHERE[:0], LABELS[:0], probabilities=False)
    assert own_columns(scores(1), nowhere) == {}
