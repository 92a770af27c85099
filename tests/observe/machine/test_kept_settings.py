from __future__ import annotations

import pytest
import torch

from auditkit.errors import CaptureError
from auditkit.observe.machine.determinism import deterministic, unchanged_settings


def test_a_program_that_changes_the_threads_is_refused_by_name() -> None:
    with (
        deterministic(1),
        pytest.raises(CaptureError, match="torch threads"),
        unchanged_settings(),
    ):
        torch.set_num_threads(2)


def test_a_program_that_turns_determinism_off_is_refused_by_name() -> None:
    with (
        deterministic(1),
        pytest.raises(CaptureError, match="deterministic algorithms"),
        unchanged_settings(),
    ):
        torch.use_deterministic_algorithms(False)


def test_the_default_dtype_is_the_programs_own_business() -> None:
    with deterministic(1), unchanged_settings():
        held = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            assert torch.get_default_dtype() is torch.float64
        finally:
            torch.set_default_dtype(held)


def test_nothing_changed_is_nothing_said() -> None:
    with deterministic(1), unchanged_settings():
        torch.ones(2).sum()
