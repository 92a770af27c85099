"""Every library by name: its recorded loop and its study become what the table says.

``ECOSYSTEM_FOLDER`` names a folder that keeps the environments from one run to the next.
"""

from __future__ import annotations

import os
import subprocess
from itertools import chain
from pathlib import Path

import pytest

from ecosystem import optimizers
from ecosystem.environments import ROOT
from ecosystem.examination import EXAMINATIONS, WORKERS, environment_of
from ecosystem.libraries import LIBRARIES, PINS


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("ECOSYSTEM_FOLDER")
    return Path(given) if given else tmp_path_factory.mktemp("ecosystem")


def test_no_pin_contradicts_the_constraints_under_which_all_is_installed() -> None:
    """An environment that cannot be made is skipped, so that nobody would see it."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints = dict(line.split("==") for line in lines if "==" in line)
    given = [pin for pins in PINS.values() for pin in (*pins.packages, *pins.without_needs)]
    pinned = [pin.split("==") for pin in (*given, *chain(*optimizers.LIBRARIES.values()))]
    shared = {name: version for name, version in pinned if name in constraints}
    assert shared
    assert shared == {name: constraints[name] for name in shared}


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("kind", EXAMINATIONS)
@pytest.mark.parametrize("name", LIBRARIES)
def test_it_becomes_what_the_table_says(name: str, kind: str, workers: int, folder: Path) -> None:
    library = LIBRARIES[name]
    try:
        python = environment_of(folder, library)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"its environment cannot be made: {error.stderr[-300:]}")
    found = EXAMINATIONS[kind](python, folder, name, workers)
    expected = getattr(library, kind)[WORKERS.index(workers)]
    if expected == "works":
        assert found.word == "works", found.reason
    else:
        assert found.word in ("refused", "warned"), found
        assert expected in found.reason, found
