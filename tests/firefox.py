"""A real Firefox, by its own remote protocol Marionette: JSON over a socket, no driver needed.

::

    with Firefox(executable, folder) as firefox:
        firefox.opens(page)
        firefox.gives("#folder", Path("run"))
        firefox.evaluate("return document.title")
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

#: Seconds that a start, and an answer, may take.
_PATIENCE = 60.0

_QUIET = """
user_pref("marionette.port", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
"""

#: No dialog can be used: files of a second field stand in the place of a folder's.
_SECOND = """
const second = document.createElement("input");
second.type = "file";
second.multiple = true;
document.body.append(second);
return second;
"""
_GIVE = """
const [chosen, second, names] = arguments;
const field = document.querySelector(chosen);
const files = Array.from(second.files, (file, n) =>
  Object.defineProperty(file, "webkitRelativePath", { value: names[n] }));
Object.defineProperty(field, "files", { configurable: true, get: () => files });
second.remove();
field.dispatchEvent(new Event("change", { bubbles: true }));
"""


def waited(happened: Callable[[], object]) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + _PATIENCE
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError("Firefox did not do it")
        time.sleep(0.02)


class Firefox:
    """A headless Firefox with a profile of its own."""

    def __init__(self, executable: str, folder: Path) -> None:
        (folder / "user.js").write_text(_QUIET)
        command = [executable, "-marionette", "-headless", "-no-remote", "-profile", str(folder)]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        port = folder / "MarionetteActivePort"
        waited(lambda: port.is_file() and port.read_text())
        self._socket = socket.create_connection(
            ("127.0.0.1", int(port.read_text())), timeout=_PATIENCE
        )
        self._stream = self._socket.makefile("rb")
        self._number = 0
        self._read()
        self.version = self._asked("NewSession", capabilities={})["capabilities"]["browserVersion"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(_PATIENCE)

    def opens(self, page: Path) -> None:
        """Open a page."""
        self._asked("Navigate", url=page.as_uri())

    def evaluate(self, script: str, *arguments: object) -> Any:
        """What a function with this body returns in the page."""
        found = self._asked("ExecuteScript", script=script, args=arguments, sandbox=None)
        return found["value"]

    def gives(self, field: str, folder: Path) -> None:
        """Give a field for a folder the folder's files, as its dialog does."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder.parent).as_posix() for path in files]
        second = self.evaluate(_SECOND)
        (identifier,) = second.values()
        paths = "\n".join(map(str, files))
        self._asked("ElementSendKeys", id=identifier, text=paths)
        self.evaluate(_GIVE, field, second, names)

    def _asked(self, name: str, **parameters: object) -> Any:
        self._number += 1
        said = json.dumps([0, self._number, f"WebDriver:{name}", parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(said), said))
        _, _, error, result = self._read()
        if error is not None:
            raise RuntimeError(error["message"])
        return result

    def _read(self) -> Any:
        size = b""
        while not size.endswith(b":"):
            size += self._stream.read(1)
        return json.loads(self._stream.read(int(size[:-1])))
