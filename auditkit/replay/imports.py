"""Check 8, of the code: every file that a replaying process imported is one that is known.

That is a listed code file with the listed digest, the standard library, or a file that the RECORD
of a distribution of this interpreter names, with the digest that it gives. Anything else ran
without being listed, and is named. The process says which files it imported; what they hold is
looked up here.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from auditkit.errors import StoreError
from auditkit.files import installed
from auditkit.files.store import read_bytes
from auditkit.formats.quote import brief
from auditkit.formats.redaction import redact_text
from auditkit.processes.interpreter import GENERATED_FOLDER
from auditkit.records.imports import ImportedFiles
from auditkit.records.manifest import CODE_FOLDER, CodeFile
from auditkit.records.report import Finding

#: Command lines that a warning shows.
_SHOWN = 5


class ImportJudge:
    """Judges what the processes of one verification imported; each file is named once.

    Args:
        code: The listed code.
        scratch: Folder in which it was laid for the replaying processes.
    """

    def __init__(self, code: Sequence[CodeFile], scratch: Path) -> None:
        self._code = {file.name: file.sha256 for file in code}
        self._listed: set[tuple[str, str | None]] = {
            (Path(file.name).name, file.sha256) for file in code
        }
        self._own = str(scratch / CODE_FOLDER)
        self._generated = str(scratch / GENERATED_FOLDER)
        self._distributions = installed.Distributions()
        self._judged: dict[str, Finding | None] = {}
        #: With what they held when they ran, where a process says so.
        self._seen: set[tuple[str, tuple[str, ...] | None]] = set()
        self._unnamed: set[str] = set()
        self._without_record: set[str] = set()
        self._auditkit: dict[str, str] = {}
        self._programs: dict[str, None] = {}
        self._lock = threading.Lock()

    def findings(self, imported: ImportedFiles | None) -> list[Finding]:
        """What is wrong with the imports of a process, and was not said of another one."""
        if imported is None:
            return [Finding("the replay does not say which files it imported", exit_code=6)]
        with self._lock:
            self._programs.update(dict.fromkeys(imported.programs))
            files = {**dict.fromkeys(imported.started, ""), **imported.since}
            found = [self._judge(path, name, imported) for path, name in files.items()]
        return [finding for finding in found if finding is not None]

    def warnings(self) -> Iterator[str]:
        """What no RECORD vouches for, and is no failure: what this installation itself is."""
        if self._auditkit:
            text = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(self._auditkit.items()))
            digest = hashlib.sha256(text.encode()).hexdigest()
            yield (
                "auditkit itself is not installed by a RECORD (editable mode, or found by a path); "
                f"the sha256 of its {len(self._auditkit)} modules' names and digests is {digest}"
            )
        for name in sorted(self._without_record):
            yield f"{name} is installed without a RECORD: its modules were not compared with one"
        if self._unnamed:
            names = ", ".join(sorted(Path(path).name for path in self._unnamed))
            yield f"no RECORD names what this interpreter imports when it starts: {names}"

        if self._programs:
            shown = "; ".join(brief(redact_text(line)) for line in list(self._programs)[:_SHOWN])
            more = len(self._programs) - _SHOWN
            tail = f"; and {more} more" if more > 0 else ""
            yield (
                "the replay started other programs, and what they executed was not looked at: "
                f"{shown}{tail}"
            )

    def _judge(self, path: str, module: str, imported: ImportedFiles) -> Finding | None:
        """A finding about a file that was not judged yet."""
        ran = imported.digests.get(path)
        if path.startswith(f"{self._own}/"):  # may change from process to process
            now = _sha256(path)
            return self._once(path, self._judge_own(path, {*(ran or ()), now}))
        if (path, ran) in self._seen:
            return None
        self._seen.add((path, ran))
        started = path not in imported.since
        return self._once(path, self._judge_other(path, module, ran, started=started))

    def _once(self, path: str, finding: Finding | None) -> Finding | None:
        if self._judged.get(path) == finding:
            return None
        self._judged[path] = finding
        return finding

    def _judge_own(self, path: str, ran: set[str | None]) -> Finding | None:
        name = path[len(self._own) + 1 :]
        if name not in self._code:
            return _unlisted(path, name)
        if ran != {self._code[name]}:
            text = "the file that was executed is not the listed one: the replay changed it"
            return Finding(text, f"code/{name}")
        return None

    def _judge_other(
        self, path: str, module: str, ran: Sequence[str | None] | None, *, started: bool
    ) -> Finding | None:
        generated = path.startswith(f"{self._generated}/")
        is_kernel = generated and path.endswith(".so")  # compiled anew, to other bytes
        listed = self._listed_name(path, module)
        if listed is not None and not is_kernel:
            if set(ran or (_sha256(path),)) == {self._code[listed]}:
                return None
            text = f"another file ran in its place: {redact_text(path)}"
            return Finding(text, f"code/{listed}")
        recorded = self._distributions.find(path)
        if recorded is not None:
            return self._compared(path, recorded)
        known = generated or installed.is_standard(path) or self._is_laid_elsewhere(path, ran)
        if known or self._is_auditkit(path):
            return None
        if started and self._distributions.root_of(path) is not None:
            self._unnamed.add(path)  # such as virtualenv's own; nothing that an author can place
            return None
        return _unlisted(path, module)

    def _is_laid_elsewhere(self, path: str, ran: Sequence[str | None] | None) -> bool:
        """Whether it is a listed file by name and content; only of such a name it is read."""
        name = Path(path).name
        is_named = any(name == listed for listed, _ in self._listed)
        return is_named and {(name, sha256) for sha256 in ran or (_sha256(path),)} <= self._listed

    def _listed_name(self, path: str, module: str) -> str | None:
        """The listed name of a module that was found outside ``code/``."""
        stem = module.replace(".", "/")
        names = (f"{stem}{Path(path).suffix}", f"{stem}/{Path(path).name}")
        return next((name for name in names if module and name in self._code), None)

    def _compared(self, path: str, recorded: installed.InstalledFile) -> Finding | None:
        if not recorded.recorded:
            self._without_record.add(recorded.distribution)
            return None
        try:
            if installed.is_as_recorded(path, recorded):
                return None
            text = f"is not what the RECORD of {recorded.distribution} says: it was changed here"
        except StoreError as error:
            text = f"of {recorded.distribution}: {error.message}"
        return Finding(f"an installed file {text}", redact_text(path), exit_code=6)

    def _is_auditkit(self, path: str) -> bool:
        package = str(installed.PACKAGE)
        if not path.startswith(f"{package}/"):
            return False
        self._auditkit[path[len(package) + 1 :]] = _sha256(path) or ""
        return True


def _unlisted(path: str, module: str) -> Finding:
    name = f"{module} " if module else ""
    finding = Finding(
        f"code ran that the manifest does not list: {name}({redact_text(path)}), which is neither "
        "in code/, nor the standard library's, nor in the RECORD of an installed distribution",
        Path(path).name,
    )
    return replace(finding, exit_code=1)


def _sha256(path: str) -> str | None:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except StoreError:
        return None
