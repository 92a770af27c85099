"""Texts of ``--arg`` as the types that a factory declares."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from studies import PLAN, InProcessWorkers

from auditkit.errors import ProgramError
from auditkit.program.typed_arguments import typed
from auditkit.records.job import Job, ProgramSource


def _make(  # type: ignore[no-untyped-def]
    seed: int,
    shift: int,
    rate=0.1,
    flip=False,
    n=3,
    data: str = "1",
    most: int | None = None,
    **more: str,
) -> None: ...


def _typed(**arguments: Any) -> dict[str, Any]:
    return typed("_make", inspect.signature(_make).parameters, arguments)


def test_texts_become_what_annotation_or_default_says() -> None:
    assert _typed(shift="0", rate="1e-3", flip="true", n="-2") == {
        "shift": 0,
        "rate": 1e-3,
        "flip": True,
        "n": -2,
    }
    assert [_typed(flip=text)["flip"] for text in ("False", "0", "no", "yes")] == [
        *(False, False, False, True)
    ]
    real = inspect.Parameter("x", inspect.Parameter.KEYWORD_ONLY, annotation=int)
    assert typed("f", {"x": real}, {"x": "7"}) == {"x": 7}


def test_everything_else_stays_text() -> None:
    arguments = {"data": "0", "most": "5", "other": "1", "rate": 0.5}
    assert _typed(**arguments) == arguments


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"shift": "0.5"}, "takes int \\(expected a whole number, found '?0.5"),
        ({"rate": "fast"}, "takes float \\(expected a number"),
        ({"flip": "maybe"}, "takes bool \\(expected true or false"),
    ],
)
def test_a_text_that_is_none_is_refused(given: dict[str, str], expected: str) -> None:
    with pytest.raises(ProgramError, match=expected) as caught:
        _typed(**given)
    assert caught.value.exit_code == 2
    assert f"{next(iter(given))}: str to be given the text" in str(caught.value)


def test_a_job_keeps_the_text_and_builds_with_the_number(tmp_path: Path) -> None:
    for name in ("tiny_study.py", "position.py"):
        (tmp_path / name).write_bytes((Path(__file__).parents[1] / "programs" / name).read_bytes())
    (tmp_path / "shifted.py").write_text(
        "import tiny_study\n"
        "def make_program(seed, shift: int = 1):\n"
        "    program = tiny_study.make_program(seed)\n"
        "    assert shift + 1 == 1, repr(shift)\n"
        "    return program\n"
    )
    source = ProgramSource("shifted.py:make_program", str(tmp_path), {"shift": "0"})
    job = Job("build", source, PLAN, 0, out="")
    InProcessWorkers().run(job)
    assert job.program.arguments == {"shift": "0"}
