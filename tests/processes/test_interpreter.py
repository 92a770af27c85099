"""What the interpreter of a replay has of the verifier's environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditkit.processes.interpreter import is_set_by_auditkit, isolated_environment
from auditkit.records.environment import REPLAY_VARIABLES, SYSTEM_VARIABLES, protocol_variables

#: What auditkit sets in every replay, besides the variables of the protocol.
SET = {
    *("PYTHONNOUSERSITE", "PYTHONDONTWRITEBYTECODE", "PYTORCH_NVML_BASED_CUDA_CHECK"),
    *("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
}

#: Variables that a program could be steered by; the last ones begin as allowed ones do.
STEERING = (
    *("SECRET_SCALE", "PWD", "SHELL", "LD_PRELOAD", "HTTPS_PROXY", "AUDITKIT_KEY_PASSWORD"),
    *("PYTHONPATH", "PYTHONUSERBASE", "PYTHONSTARTUP", "PYTHONPYCACHEPREFIX", "PYTHONUTF8"),
    *("TORCH_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "path", "PATH "),
    *("LC_SCALE", "CUDA_SCALE", "NVIDIA_SCALE", "HIP_SCALE", "ROCR_SCALE", "DYLD_INSERT_LIBRARIES"),
)


def test_a_replay_has_what_is_allowed_and_nothing_else(tmp_path: Path) -> None:
    allowed = dict.fromkeys(REPLAY_VARIABLES, "x")
    found = isolated_environment({**dict.fromkeys(STEERING, "y"), **allowed}, tmp_path)
    assert {name: found[name] for name in allowed} == allowed
    assert set(found) - set(allowed) == SET


def test_the_protocol_reaches_a_replay(tmp_path: Path) -> None:
    found = isolated_environment(protocol_variables(3), tmp_path)
    assert found.items() >= protocol_variables(3).items()


def test_what_is_let_through_by_name_reaches_it(tmp_path: Path) -> None:
    variables = {"SECRET_SCALE": "3", "OTHER": "4"}
    found = isolated_environment(variables, tmp_path, ["SECRET_SCALE", "ABSENT"])
    assert {name: found[name] for name in set(found) - SET} == {"SECRET_SCALE": "3"}


@pytest.mark.parametrize(
    "name",
    [
        *("PYTHONPATH", "PYTHONUSERBASE", "PYTHONHASHSEED", "PYTHONPYCACHEPREFIX"),
        *("OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "TRITON_CACHE_DIR"),
        "AUDITKIT_KEY_PASSWORD",
    ],
)
def test_what_auditkit_sets_is_nobodys_to_let_through(name: str, tmp_path: Path) -> None:
    assert is_set_by_auditkit(name)
    found = isolated_environment({name: "somewhere"}, tmp_path, [name])
    assert found.get(name) != "somewhere" or name in REPLAY_VARIABLES


def test_the_list_is_short_and_has_no_beginnings() -> None:
    assert len(REPLAY_VARIABLES) < 70
    assert all(name.replace("_", "").isalnum() and name.isupper() for name in REPLAY_VARIABLES)


def test_the_manual_lists_the_systems_variables() -> None:
    page = (Path(__file__).parents[2] / "auditkit/manual/checks.md").read_text(encoding="utf-8")
    categories = {name for name in SYSTEM_VARIABLES if name.startswith("LC_")} - {"LC_ALL"}
    assert len(categories) == 6  # as the page says
    assert [n for n in SYSTEM_VARIABLES if n not in categories and f"`{n}`" not in page] == []
