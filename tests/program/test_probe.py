from __future__ import annotations

from collections import UserDict
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auditkit.errors import ProgramError
from auditkit.program.probe import Probe
from auditkit.program.real_outputs import real_table

LABELS = torch.arange(5) % 3
X = torch.arange(15.0).view(5, 3)


class Encoding(UserDict[str, Any]):
    """A tokenizer's batch."""


class Pair(NamedTuple):
    x: Any
    y: Any


class ByName(nn.Module):
    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Any:
        return SimpleNamespace(logits=ids if mask is None else ids * mask)


class Positional(nn.Module):
    def forward(self, batch: Any) -> Tensor:
        return torch.as_tensor(batch["ids"])


def parts(inputs: Any, batch_size: int = 2) -> list[Any]:
    return list(Probe(inputs, LABELS, batch_size=batch_size).parts())


# Rows a few at a time


@pytest.mark.parametrize(
    "inputs",
    [
        X,
        X.numpy(),
        {"x": X, "names": list("abcde"), "scale": 2.0},
        Encoding({"x": X, "inner": {"deep": [X, (X,)]}}),
        (X, LABELS),
        Pair(X, {"y": LABELS}),
    ],
    ids=["tensor", "array", "dict", "mapping", "tuple", "named tuple"],
)
def test_inputs_are_passed_a_few_rows_at_a_time_in_their_own_form(inputs: Any) -> None:
    found = parts(inputs)
    assert len(found) == 3
    assert all(type(part) is type(inputs) for part in found)


def test_every_row_is_passed_once_and_what_has_no_rows_is_passed_whole() -> None:
    found = parts(Encoding({"x": X, "names": list("abcde"), "scale": 2.0}))
    assert torch.equal(torch.cat([part["x"] for part in found]), X)
    assert [part["names"] for part in found] == [["a", "b"], ["c", "d"], ["e"]]
    assert {part["scale"] for part in found} == {2.0}


@pytest.mark.parametrize(
    "inputs",
    [
        list("abcde"),
        {"x": X, "bank": torch.zeros(7, 3)},
        [torch.zeros(2), torch.zeros(3)],
        np.float32(1.0),
        None,
        object(),
    ],
    ids=["texts", "other rows", "ragged", "number", "nothing", "object"],
)
def test_inputs_that_are_not_all_rows_are_passed_at_once(inputs: Any) -> None:
    (part,) = parts(inputs)
    assert part is inputs


# What the model is called with


@pytest.mark.parametrize("kind", [dict, Encoding])
def test_a_mapping_is_given_by_name_where_the_model_takes_its_keys(kind: Any) -> None:
    inputs = kind({"ids": X, "mask": torch.zeros_like(X)})
    assert torch.equal(Probe(inputs, LABELS).scores(ByName(), inputs), torch.zeros_like(X))


def test_a_mapping_is_given_whole_where_the_model_takes_other_names() -> None:
    inputs = {"ids": X, "mask": X}
    assert torch.equal(Probe(inputs, LABELS).scores(Positional(), inputs), X)


def test_predict_is_given_the_inputs_as_they_are_and_its_result_is_taken_as_it_is() -> None:
    inputs = {"ids": X}
    probe = Probe(inputs, LABELS, predict=lambda model, given: given["ids"] + 1)
    assert torch.equal(probe.scores(ByName(), inputs), X + 1)


@pytest.mark.parametrize(
    ("predict", "found"),
    [(None, "OutputWithoutLogits"), (lambda model, inputs: SimpleNamespace(logits=X), "Simple")],
)
def test_what_is_no_tensor_of_scores_is_refused_by_its_class(predict: Any, found: str) -> None:
    class OutputWithoutLogits:
        pass

    class Model(nn.Module):
        def forward(self, inputs: Tensor) -> Any:
            return OutputWithoutLogits()

    with pytest.raises(ProgramError, match=f"gives .*{found}.*, not a tensor of class scores"):
        Probe(X, LABELS, predict=predict).scores(Model(), X)


# Real numbers


@pytest.mark.parametrize(
    ("targets", "options", "says"),
    [
        (LABELS, {}, "must be real numbers"),
        (torch.ones(0), {}, "must be real numbers"),
        (torch.tensor(1.0), {}, "must be real numbers"),
        (torch.full((5,), torch.nan), {}, "NaN, infinite or beyond float32"),
        (torch.full((5,), 1e300, dtype=torch.float64), {}, "NaN, infinite or beyond float32"),
        (torch.ones(5), {"outputs": "embedding"}, "an embedding has no targets"),
        (torch.ones(5), {"outputs": "numbers"}, "expected classes or regression or embedding"),
        (torch.ones(5), {"probabilities": True}, "outputs='classes', probabilities=True"),
        (torch.ones(5), {"outputs": "classes"}, "outputs='regression'"),
    ],
)
def test_targets_and_kinds_that_do_not_fit_are_refused(
    targets: Tensor, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ProgramError) as caught:
        Probe(X, targets, **{"outputs": "regression", **options})
    assert says in str(caught.value)


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 2), (5, 2, 3)])
def test_targets_are_one_row_an_example(shape: tuple[int, ...]) -> None:
    probe = Probe(X, torch.ones(shape, dtype=torch.float16), outputs="regression", batch_size=2)
    assert probe.targets is not None
    assert (probe.targets.dtype, len(probe.targets)) == (torch.float64, 5)
    assert probe.targets.numel() == torch.ones(shape).numel()
    assert (probe.by_position, len(probe.known_labels)) == (False, 0)
    table = real_table(probe, torch.zeros(shape))
    assert table.dtype.name == "float32"
    assert table.shape == tuple(probe.targets.shape)
    assert [len(part) for part in probe.parts()] == [2, 2, 1]


def test_rows_of_proportions_may_be_predicted_where_they_are_the_targets() -> None:
    proportions = torch.full((5, 2), 0.5)
    probe = Probe(X, proportions, outputs="regression")
    assert real_table(probe, proportions).shape == (5, 2)
    for other in (Probe(X, 2 * proportions, outputs="regression"), Probe(X, outputs="regression")):
        with pytest.raises(ProgramError, match="as class probabilities do"):
            real_table(other, proportions)


def test_other_numbers_of_rows_are_refused() -> None:
    for outputs in (torch.zeros(4, 2), torch.tensor(1.0)):
        with pytest.raises(ProgramError, match=r"expected floating point \(5, D\)"):
            real_table(Probe(X, outputs="embedding"), outputs)


@pytest.mark.parametrize(
    ("labels", "way"),
    [
        (torch.zeros(4, 2, 3, dtype=torch.int64), "labels.flatten(1)"),
        (torch.zeros(4, 3), "labels.long()"),
    ],
)
def test_labels_of_another_shape_or_kind_are_refused_with_a_way(labels: Any, way: str) -> None:
    with pytest.raises(ProgramError, match="one class index an example") as caught:
        Probe(torch.zeros(4, 1), labels)
    assert way in (caught.value.hint or "")
