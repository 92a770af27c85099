from __future__ import annotations

import numpy as np
import pytest

from auditkit.errors import FormatError
from auditkit.formats.sample_digests import (
    Window,
    augmentation_drift,
    samples_from_tensors,
    samples_to_tensors,
)
from auditkit.records.digest import ABSENT
from auditkit.records.tensor import RawTensor

A, B, C = (bytes([n]) * 16 for n in (1, 2, 3))
ORDER = [np.array([[1, 4], [1, 5]]), np.array([[1, 6]])]
MOVED = [np.array([[1, 6], [1, 5]]), np.array([[1, 4]])]
CONTROL = Window(ORDER, [[A, B], [C]])


def test_there_and_back() -> None:
    tensors = samples_to_tensors([[A, B], [C]])
    assert tensors["samples"].shape == (2, 2, 16)
    assert samples_from_tensors(tensors, what="x") == [[A, B], [C, ABSENT]]
    assert samples_from_tensors(samples_to_tensors([]), what="x") == []


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"samples": RawTensor("uint8", (2, 16), A + B)},
        {"samples": RawTensor("uint8", (1, 2, 8), A)},
        {"samples": RawTensor("int8", (1, 1, 16), A)},
        {**samples_to_tensors([[A]]), "more": RawTensor("uint8", (1, 1, 16), A)},
    ],
)
def test_other_shapes_are_refused(tensors: dict[str, RawTensor]) -> None:
    with pytest.raises(FormatError):
        samples_from_tensors(tensors, what="x")


def test_samples_that_keep_their_looks() -> None:
    assert augmentation_drift(CONTROL, Window(MOVED, [[C, B], [A]])) is None
    padded = samples_from_tensors(samples_to_tensors([[C, B], [A]]), what="x")
    assert augmentation_drift(CONTROL, Window(MOVED, padded)) is None


def test_the_first_sample_that_does_not_is_named() -> None:
    drift = augmentation_drift(CONTROL, Window(MOVED, [[C, A], [B]]))
    assert drift is not None
    assert (drift.epoch, drift.index, drift.offset) == (1, 5, 0)
    assert "sample 5 of epoch 1 has other bytes" in str(drift)


def test_two_looks_in_the_control() -> None:
    drift = augmentation_drift(Window([ORDER[0], ORDER[0]], [[A, B], [A, C]]), CONTROL)
    assert drift is not None
    assert (drift.index, drift.offset, drift.in_control) == (5, 1, True)
    assert "two looks in the control" in str(drift)


def test_what_has_no_digest_says_nothing() -> None:
    assert augmentation_drift(CONTROL, Window(MOVED, [[C, ABSENT], [A]])) is None
    assert augmentation_drift(CONTROL, Window(MOVED, [])) is None
    assert Window(MOVED, [[C, ABSENT]]).n_unmeasured == 2
    assert CONTROL.n_unmeasured == 0
