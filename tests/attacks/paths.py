"""Attacks on what a name stands for: elsewhere, nothing, something that is no file, two files."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forging
import pytest
from studies import Run

from attacks.attack import Attack
from auditkit.files import artifacts

GROUP = "paths"

FORK = "seed-0000/fork.safetensors"
CODE = "code/tiny_study.py"
REPLICA = "seed-0000/replica.trace.safetensors"


def renamed(name: str, old: str = FORK) -> Callable[[Run], object]:
    """List a file under another name, wherever the statement has it."""

    def edit(told: forging.Statement) -> None:
        predicate = told["predicate"]
        for item in (*told["subject"], *predicate["files"]):
            if item["name"] == old:
                item["name"] = name
        for listing in (told["subject"], predicate["files"]):
            listing.sort(key=lambda item: str(item["name"]))
        seed = predicate["seeds"][0]
        for holder in (seed, *seed["branches"]):
            for field in ("fork", "trace", "outcome"):
                if holder.get(field) == old:
                    holder[field] = name

    return lambda run: forging.edit_statement(run, edit)


def moved(name: str, old: str = FORK) -> Callable[[Run], object]:
    """The same, and the file is there."""

    def apply(run: Run) -> None:
        renamed(name, old)(run)
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / old).rename(run.folder / name)

    return apply


def replaced(by: Callable[[Path], object], name: str = FORK) -> Callable[[Run], object]:
    """Put something else in a file's place."""

    def apply(run: Run) -> None:
        path = run.folder / name
        path.rename(run.folder.parent / "elsewhere")
        by(path)

    return apply


def _outside(path: Path) -> Path:
    return path.parents[2] / "elsewhere"


def _link_folder(run: Run) -> None:
    target = run.folder.parent / "elsewhere"
    (run.folder / "seed-0000").rename(target)
    (run.folder / "seed-0000").symlink_to(target)


def _other_hard_link(run: Run) -> None:
    """A file with a second name outside, through which it is changed after signing."""
    other = run.folder.parent / "elsewhere"
    other.hardlink_to(run.folder / FORK)
    with other.open("r+b") as file:
        file.write(b"\xff\xff")


def _listed_twice(run: Run) -> None:
    def edit(told: forging.Statement) -> None:
        told["predicate"]["files"].append(told["predicate"]["files"][-1])

    forging.edit_statement(run, edit)


def _twin(name: str) -> Callable[[Run], object]:
    """A branch's trace under a name that another file system takes for another branch's."""
    return moved(name, REPLICA)


def _manifest_is(make: Callable[[Path], object]) -> Callable[[Run], object]:
    def apply(run: Run) -> None:
        run.path.unlink()
        make(run.path)

    return apply


@contextlib.contextmanager
def _growing(run: Run) -> Iterator[None]:
    """The file gets longer with every piece that is read of it."""
    honestly = artifacts.open_artifact

    class Growing(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            with (run.folder / FORK).open("ab") as file:
                file.write(b"more")
            return super().read(size)

    def open_growing(root: str | Path, name: str) -> Any:
        file: Any = honestly(root, name)
        return Growing(file.detach()) if name == FORK else file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "open_artifact", open_growing)
        yield


def _unlisted(run: Run) -> None:
    (run.folder / "seed-0000" / "sitecustomize.py").write_text("raise SystemExit(0)\n")


def _unsafe(name: str, path: str, says: str = "unsafe path") -> Attack:
    return Attack(name, GROUP, renamed(path), 3, 1, says)


def _kind(name: str, apply: Callable[[Run], object], says: str, where: str = FORK) -> Attack:
    return Attack(name, GROUP, apply, 3, 1, says, where=where)


ATTACKS = (
    _unsafe("upwards", "../secret"),
    _unsafe("upwards in the middle", "seed-0000/../../secret"),
    _unsafe("absolute", "/etc/hostname"),
    _unsafe("a device by its path", "/dev/zero"),
    _unsafe("backslash", "seed-0000\\fork.safetensors"),
    _unsafe("a drive", "C:fork.safetensors"),
    _unsafe("control characters", "seed-0000/\x1b[2Jfork"),
    _unsafe("a line separator", "seed-0000/fork\u2028VERIFIED"),
    _unsafe("empty component", "seed-0000//fork.safetensors"),
    _unsafe("this folder", "."),
    _unsafe("a trailing slash", "seed-0000/"),
    Attack("an empty name", GROUP, renamed(""), 1, 5, "name"),
    Attack("a name of a megabyte", GROUP, renamed("a" * 10**6), 1, 5, "name"),
    _kind(
        "a component longer than file systems take",
        renamed("seed-0000/" + "a" * 300),
        "no name that a file here can have",
        "seed-0000/" + "a" * 300,
    ),
    _kind(
        "a link to the same content",
        replaced(lambda path: path.symlink_to(_outside(path))),
        "a symbolic link",
    ),
    _kind("a link to a device", replaced(lambda path: path.symlink_to("/dev/zero")), "link"),
    _kind("a link that leads nowhere", replaced(lambda path: path.symlink_to("nowhere")), "link"),
    _kind("a folder that is a link", _link_folder, "link"),
    _kind("a FIFO", replaced(os.mkfifo), "a FIFO"),
    _kind("a folder", replaced(lambda path: path.mkdir()), "a folder"),
    _kind("missing", replaced(lambda path: None), "no such file"),
    _kind(
        "a file where a folder should be", renamed(f"{CODE}/fork"), "no such file", f"{CODE}/fork"
    ),
    _kind("changed through another hard link", _other_hard_link, "sha256 is"),
    Attack(
        "a file that grows while it is read",
        GROUP,
        lambda _: None,
        3,
        1,
        "changed while it was read",
        where=FORK,
        during=_growing,
    ),
    Attack("listed twice", GROUP, _listed_twice, 1, 5, "both"),
    Attack(
        "twins by case",
        GROUP,
        _twin("seed-0000/CONTROL.trace.safetensors"),
        4,
        1,
        "only in case or in Unicode form",
        where="seed-0000/control.trace.safetensors",
    ),
    Attack(
        "twins by Unicode form",
        GROUP,
        lambda run: (
            moved("seed-0000/r\u00e9plica.trace", REPLICA)(run),
            moved("seed-0000/re\u0301plica.trace", "seed-0000/carry.trace.safetensors")(run),
        ),
        4,
        1,
        "only in case or in Unicode form",
    ),
    Attack(
        "twins by width",
        GROUP,
        _twin("seed-0000/\uff43ontrol.trace.safetensors"),
        4,
        1,
        "only in case or in Unicode form",
    ),
    Attack(
        "an unlisted file, where that is strict",
        GROUP,
        _unlisted,
        3,
        1,
        "lists no such file",
        where="seed-0000/sitecustomize.py",
        options={"strict": True},
    ),
    Attack("the manifest is a FIFO", GROUP, _manifest_is(os.mkfifo), 1, 2, "not a regular file"),
    Attack(
        "the manifest is a link to a device",
        GROUP,
        _manifest_is(lambda path: path.symlink_to("/dev/zero")),
        1,
        2,
        "not a regular file",
    ),
    Attack("control: an unlisted file is a warning", GROUP, _unlisted, 0, 0),
    Attack(
        "control: a hard link to the same content",
        GROUP,
        lambda run: (run.folder.parent / "elsewhere").hardlink_to(run.folder / FORK),
        0,
        0,
    ),
)
