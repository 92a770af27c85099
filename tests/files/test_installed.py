"""What is installed, by RECORD and not by the name of a folder."""

from __future__ import annotations

import base64
import hashlib
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from auditkit.files import installed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one distribution of one module."""
    root = tmp_path / "any"
    (root / "Thing-1.2.dist-info").mkdir(parents=True)
    (root / "thing.py").write_text("X = 1\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"X = 1\n").digest()).rstrip(b"=").decode()
    (root / "Thing-1.2.dist-info" / "RECORD").write_text(f"thing.py,sha256={digest},6\n")
    return root


def test_record_names_a_file_and_its_digest(root: Path) -> None:
    found = installed.Distributions([root]).find(str(root / "thing.py"))
    assert found is not None
    assert found.distribution == "Thing 1.2"
    assert installed.is_as_recorded(str(root / "thing.py"), found)


@pytest.mark.parametrize("text", ["X = 2\n", "X = 1\n\n"])
def test_another_content_is_not_as_recorded(root: Path, text: str) -> None:
    found = installed.Distributions([root]).find(str(root / "thing.py"))
    (root / "thing.py").write_text(text)
    assert found is not None
    assert not installed.is_as_recorded(str(root / "thing.py"), found)


def test_a_file_beside_the_recorded_ones_is_nobodys(root: Path) -> None:
    (root / "other.py").write_text("")
    assert installed.Distributions([root]).find(str(root / "other.py")) is None


def test_a_distribution_without_a_record_is_told_apart(root: Path) -> None:
    (root / "Thing-1.2.dist-info" / "RECORD").unlink()
    found = installed.Distributions([root]).find(str(root / "thing.py"))
    assert found is not None
    assert not found.recorded


def test_a_folder_is_no_place_of_installed_code_for_its_name(tmp_path: Path) -> None:
    file = tmp_path / "site-packages" / "evil.py"
    assert installed.Distributions().root_of(str(file)) is None
    assert installed.look_alike(str(file)) == tmp_path / "site-packages"
    assert installed.Distributions().find(str(Path(np.__file__))) is not None


def test_the_standard_library_is_not_what_is_installed_below_it() -> None:
    folder = sysconfig.get_paths()["stdlib"]
    assert installed.is_standard(f"{folder}/json/decoder.py")
    assert not installed.is_standard(f"{folder}/site-packages/evil.py")
