"""Names of files beside a manifest, and values as parts of names."""

from __future__ import annotations

import pytest

from auditkit.records.file_names import is_replay_result
from auditkit.records.report import REPLAY_NAME

_LATER = "replay-0123456789abcdef-20260101T000000000000Z.json"


@pytest.mark.parametrize("name", [REPLAY_NAME, _LATER])
def test_the_result_of_a_replay_is_known_by_its_name(name: str) -> None:
    assert is_replay_result(name)
    for other in (name.upper(), f"{name}\n", f"x{name}", f"{name}.partial", f"code/{name}"):
        assert not is_replay_result(other)
    assert not is_replay_result(name.replace(".", "-"))
