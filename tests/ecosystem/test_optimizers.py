"""Every optimizer of some libraries through a study becomes what is expected of it.

``ECOSYSTEM_FOLDER`` names a folder that keeps the environments from one run to the next.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ecosystem.optimizers import EXPECTED, LIBRARIES, table


@pytest.mark.slow
@pytest.mark.parametrize("module", LIBRARIES)
def test_every_optimizer_is_verified_or_refused_by_name(module: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("ECOSYSTEM_FOLDER", tmp_path)).resolve()
    try:
        # Each of heavyball's is compiled anew: those that were tried.
        only = list(EXPECTED[module]) if module == "heavyball" else None
        found = dict(table(folder, module, only))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"its environment cannot be made: {error.stderr[-300:]}")
    assert found
    expected = dict.fromkeys(found, "verified") | EXPECTED.get(module, {})
    wrong = {name: verdict for name, verdict in found.items() if verdict[0] != expected[name]}
    assert not wrong
    assert all(reason for word, reason in found.values() if word != "verified")
