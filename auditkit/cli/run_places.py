"""``--out``: the folder of a new run, or a URL that it is moved to when it is finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from auditkit.cli.options import require_utf8
from auditkit.cli.saying import say
from auditkit.errors import ReplicaMismatch, StoreError, UsageError
from auditkit.records.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from auditkit.files.far_folders import FarFolder


@dataclass(frozen=True)
class RunPlace:
    """Where a run is built, and where it goes.

    Attributes:
        folder: The folder that it is built in.
        far: Where it is moved to; None where it stays.
    """

    folder: Path
    far: FarFolder | None = None

    @property
    def is_built(self) -> bool:
        """Whether an earlier command has built it, and not moved it."""
        return self.far is not None and (self.folder / MANIFEST_NAME).exists()

    def moved(self, build: Callable[[], Path]) -> Path | str:
        """Build it, and move it where it goes; its manifest there."""
        try:
            manifest = build()
        except ReplicaMismatch:  # it is there all the same
            if self.is_built:
                self.move()
            raise
        return manifest if self.far is None else self.move()

    def move(self) -> str:
        """Move what was built; its manifest there.

        Raises:
            StoreError: When it cannot be moved, and stays where it is.
        """
        assert self.far is not None  # noqa: S101 # asked by whoever calls
        say(f"moving the run to {self.far.url}")
        return self.far.move_here(self.folder)


def run_place(out: str | None, *, resume: bool) -> RunPlace:
    """Where a run goes.

    Raises:
        StoreError: When the URL cannot be reached, or something lies there, or a run was built
            for it.
        UsageError: When it is no URL, and looks like one.
    """
    if out is None or "://" not in out:
        return RunPlace(local_folder(out or ""))
    # Lazy for start-up time.
    from auditkit.files.far_folders import FarFolder, is_url  # noqa: PLC0415

    if not is_url(out):
        raise UsageError(f"--out {out} names no folder", hint="give a folder, or PROTOCOL://FOLDER")
    far = FarFolder(out)
    far.require_free()
    place = RunPlace(far.staging, far)
    if not resume and not place.is_built:
        far.require_no_others()
    if place.is_built and not resume:
        raise StoreError(
            f"a run for {far.url} is finished, and was not moved there",
            where=str(place.folder),
            hint="move it with --resume, or remove that folder",
        )
    return place


def local_folder(out: str) -> Path:
    """The folder that was given where no URL is taken.

    Raises:
        UsageError: When it is one.
    """
    if "://" in out:
        raise UsageError(
            f"--out {out} is a URL", hint="give a folder; only auditkit run moves a study away"
        )
    require_utf8("the path of --out", str(Path(out).absolute()), "name another folder")
    return Path(out)
