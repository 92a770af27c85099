"""The interpreter that a replay runs in: what it can import is known.

Its path holds the standard library and the folders that distributions are installed into (with
what those say in ``.pth`` files: they are the verifier's own), and later the recorded ``code/``.
Not the working folder, not ``PYTHONPATH``, not the user's own site. So that auditkit need not be
found through any of these, the package itself is given by its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: Below a replay's folder: where compilers put the code that they make while it runs.
GENERATED_FOLDER = "generated"

_PACKAGE = str(Path(__file__).resolve().parents[1])

#: As ``python -m auditkit worker PIPE``, with the package from the folder that is named.
_START = """
import importlib.util, sys
_, folder, pipe = sys.argv
spec = importlib.util.spec_from_file_location(
    "auditkit", folder + "/__init__.py", submodule_search_locations=[folder]
)
sys.modules["auditkit"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from auditkit.cli.worker import worker
worker([pipe])
"""

_DROPPED = ("PYTHONPATH", "PYTHONUSERBASE", "PYTHONSTARTUP")


def isolated_arguments() -> tuple[str, ...]:
    """Arguments of the interpreter before the number of the answer pipe."""
    return ("-P", "-s", "-c", _START, _PACKAGE)


def isolated_environment(variables: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Environment of such a process.

    Args:
        variables: Of an ordinary one.
        scratch: The replay's folder; compiled code that an earlier process left is not used.
    """
    kept = {name: value for name, value in variables.items() if name not in _DROPPED}
    made = scratch / GENERATED_FOLDER
    return {
        **kept,
        "PYTHONNOUSERSITE": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(made / "inductor"),
        "TRITON_CACHE_DIR": str(made / "triton"),
    }
