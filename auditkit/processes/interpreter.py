"""The interpreters that workers run in; of a replay's it is known what it can import.

A replay's path holds the standard library and the folders that distributions are installed into
(with what those say in ``.pth`` files: they are the verifier's own), and later the recorded
``code/``. Not the working folder, not ``PYTHONPATH``, not the user's own site. So that auditkit
need not be found through any of these, the package itself is given by its folder. Of the verifier's
variables it has those that the system needs or that the record lists, and those that he lets
through by name: any other would be a setting that no report names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from auditkit.records.environment import CHILD_VARIABLES, REPLAY_VARIABLES, THREAD_VARIABLES

#: Below a replay's folder: where compilers put the code that they make while it runs.
GENERATED_FOLDER = "generated"

_PACKAGE = str(Path(__file__).resolve().parents[1])

#: As ``python -m auditkit worker PIPE`` does it, with the package from the folder that is named.
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

#: Variables of this interpreter and of auditkit, which nobody lets through.
_OWN_PREFIXES = ("PYTHON", "AUDITKIT")

#: Whether there is a GPU is asked in a way after which forks can use it, too.
NVML_CHECK = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}

_COMPILED = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}


#: Arguments of a worker's interpreter before the number of its pipe. ``-P`` keeps the working
#: folder, which may be somebody else's run, off ``sys.path``: a ``torch.py`` that lies there must
#: not be imported. A worker has the auditkit that starts it, whichever is installed.
WORKER_ARGUMENTS = ("-P", "-c", _START, _PACKAGE)

#: Of a replay's: without the user's own site, too.
ISOLATED_ARGUMENTS = ("-s", *WORKER_ARGUMENTS)


def is_set_by_auditkit(name: str) -> bool:
    """Whether a variable is the interpreter's, or one that every replay sets in its own way."""
    fixed = (*CHILD_VARIABLES, *THREAD_VARIABLES, *NVML_CHECK, *_COMPILED)
    return name in fixed or name.startswith(_OWN_PREFIXES)


def isolated_environment(
    variables: Mapping[str, str], scratch: Path, let_through: Collection[str] = ()
) -> dict[str, str]:
    """Environment of such a process.

    Args:
        variables: Of an ordinary one.
        scratch: The replay's folder; compiled code that an earlier process left is not used.
        let_through: Names of further variables that the process has.
    """
    allowed = {name for name in let_through if not is_set_by_auditkit(name)} | REPLAY_VARIABLES
    made = scratch / GENERATED_FOLDER
    return {
        **{name: value for name, value in variables.items() if name in allowed},
        "PYTHONNOUSERSITE": "1",
        **NVML_CHECK,
        "PYTHONDONTWRITEBYTECODE": "1",  # code/ must hold the recorded files and nothing else
        **{name: str(made / folder) for name, folder in _COMPILED.items()},
    }
