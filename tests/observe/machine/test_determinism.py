from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from auditkit.errors import CaptureError
from auditkit.observe.machine.determinism import deterministic, settings, unchanged_settings

BACKENDS: Any = torch.backends


@pytest.fixture(autouse=True)
def _settings_put_back() -> Iterator[None]:
    with deterministic(threads=torch.get_num_threads()):
        BACKENDS.cudnn.allow_tf32 = True
        yield


SETTERS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "threads": lambda: torch.set_num_threads(2),
    "warn only": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "not deterministic": lambda: torch.use_deterministic_algorithms(False),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "tf32": lambda: setattr(BACKENDS.cudnn, "allow_tf32", True),
    "no tf32": lambda: setattr(BACKENDS.cudnn, "allow_tf32", False),
    "benchmark": lambda: setattr(BACKENDS.cudnn, "benchmark", True),
    "fill": lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", False),
}


@pytest.mark.parametrize("name", SETTERS)
def test_everything_is_put_back_also_after_an_error(name: str) -> None:
    SETTERS[name]()
    before = settings()
    inside: dict[str, str] = {}

    def fail() -> None:
        with deterministic(threads=1):
            inside.update(settings())
            SETTERS[name]()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert settings() == before
    assert inside["torch threads"] == "1"
    assert inside["deterministic algorithms"] == "True"
    assert inside["deterministic debug mode"] == "2"
    assert inside["fill uninitialized memory"] == "True"
    assert inside["float32 matmul precision"] == "highest"
    assert inside["cudnn deterministic"] == "True"
    assert inside["cudnn benchmark"] == "False"
    assert inside["cudnn allow tf32"] == "False"
    assert {v for k, v in inside.items() if k.startswith("fp32 precision")} <= {"ieee"}


@pytest.mark.skipif(not hasattr(BACKENDS.cudnn, "conv"), reason="an older torch")
def test_newer_precision_settings_are_forced_and_put_back() -> None:
    BACKENDS.cudnn.conv.fp32_precision, BACKENDS.cudnn.rnn.fp32_precision = "tf32", "ieee"
    BACKENDS.mkldnn.matmul.fp32_precision = "bf16"
    before = settings()
    with deterministic(threads=1):
        inside = settings()
    assert {v for k, v in inside.items() if k.startswith("fp32 precision")} == {"ieee"}
    after = settings()
    assert after == before
    assert before["fp32 precision cudnn.conv"] == "tf32"
    assert before["fp32 precision mkldnn.matmul"] == "bf16"


def test_settings_see_every_change() -> None:
    changes: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
        (
            "default dtype",
            lambda: torch.set_default_dtype(torch.float64),
            lambda: torch.set_default_dtype(torch.float32),
        ),
        (
            "flush denormal",
            lambda: torch.set_flush_denormal(True),
            lambda: torch.set_flush_denormal(False),
        ),
        (
            "attention flash",
            lambda: BACKENDS.cuda.enable_flash_sdp(False),
            lambda: BACKENDS.cuda.enable_flash_sdp(True),
        ),
    ]
    before = settings()
    for name, change, undo in changes:
        change()
        found = settings()
        undo()
        assert {key for key in found if found[key] != before[key]} == {name}
    with torch.autocast("cpu"):
        assert settings()["autocast cpu"] == "True"
    assert all(isinstance(value, str) for value in before.values())


def test_deterministic_kernels_are_on() -> None:
    torch.use_deterministic_algorithms(False)
    with deterministic(threads=1), pytest.raises(RuntimeError, match="deterministic"):
        torch.nn.MaxUnpool2d(2)(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1).long())


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
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            assert torch.get_default_dtype() is torch.float64
        finally:
            torch.set_default_dtype(default)


def test_nothing_changed_is_nothing_said() -> None:
    with deterministic(1), unchanged_settings():
        torch.ones(2).sum()
