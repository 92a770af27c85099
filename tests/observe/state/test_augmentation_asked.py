"""The question whether samples keep their looks is given up where a fork cannot answer."""

from __future__ import annotations

import os
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from auditkit.observe.state import augmentation
from auditkit.observe.state.augmentation import examine

HOME = os.getpid()


class Waits(Dataset[torch.Tensor]):
    """Whose samples come from a thread that a fork of this process lacks."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        if os.getpid() != HOME:
            time.sleep(600)
        return torch.full((2,), index)


def test_a_fork_that_waits_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "_FORK_TIMEOUT", 1)
    begin = time.monotonic()
    assert examine(DataLoader(Waits(), batch_size=2), 0, {}) is None
    assert time.monotonic() - begin < augmentation._TIMEOUT / 2
