"""Variables that the program names and a replay lacks are told to the author."""

from __future__ import annotations

import pytest
from studies import Run, study_in_process

from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey
from auditkit.study.variables import unreplayed_variables

PLAN = StudyPlan(3, 2, 5, [0], ["carry"], placebos=1)


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    for name in ("SCALE", "OMP_SCHEDULE", "PYTHONPATH", "TZ", "AUDITKIT_X"):
        monkeypatch.setenv(name, "1")


@pytest.mark.parametrize(
    "source",
    [
        'x = os.environ["SCALE"]',
        'x = float(environ.get("SCALE", "1"))',
        'def f():\n    return os.getenv("SCALE")',
        'x = getenv("SCALE")',
        'x = "SCALE" in os.environ',
        'x = os.environ.setdefault("SCALE", "2")',
        'import os as o; x = o.environ.pop("SCALE")',
    ],
)
def test_a_read_by_name_is_found(source: str) -> None:
    assert unreplayed_variables([b"x = 1", source.encode()]) == ["SCALE"]


@pytest.mark.parametrize(
    "source",
    [
        'os.environ["SCALE"] = "2"',
        'del os.environ["SCALE"]',
        'x = {"SCALE": 1}["SCALE"]',
        'x = {"SCALE": 1}.get("SCALE")',
        'x = "SCALE" in names',
        'x = os.environ["ABSENT"]',
        'x = os.environ["OMP_SCHEDULE"] + os.environ["TZ"]',
        'x = os.environ["PYTHONPATH"] + os.environ["AUDITKIT_X"]',
        'x = dict(os.environ)["SCALE"]',
        "x = os.environ[name]",
        "no python(",
        "\0",
    ],
)
def test_what_is_no_read_or_reaches_a_replay_is_not(source: str) -> None:
    assert unreplayed_variables([source.encode()]) == []


@pytest.mark.parametrize("is_set", [True, False])
def test_the_author_is_told(
    is_set: bool,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    key: PrivateKey,
) -> None:
    monkeypatch.delenv("SECRET_SCALE", raising=False)
    if is_set:
        monkeypatch.setenv("SECRET_SCALE", "1")
    warnings: list[str] = []
    out = tmp_path_factory.mktemp("told") / "run"
    run: Run = study_in_process(out, key, PLAN, "variable_study.py", warn=warnings.append)
    told = [text for text in warnings if "SECRET_SCALE" in text]
    assert (len(told), run.path.is_file()) == (int(is_set), True)
