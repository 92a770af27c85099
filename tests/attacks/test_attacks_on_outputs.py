"""What an option is told to write onto: nothing that is not its own is ever lost.

Whatever a variable of a shell holds, or a line that somebody else wrote, ``auditkit`` refuses it
in one line before it does anything, and what lies there stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click
import pytest
from cli_shell import Shell
from studies import Run

from auditkit.cli import main
from auditkit.signing.envelopes import sign_statement
from auditkit.signing.keys import generate_key, public_line

KEY = generate_key()

#: Every option that writes a file: a command line, whose last word is the file.
OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "verify --json": ("verify", "run", "--replay", "none", "--json"),
    "reproduce --json": ("reproduce", "run", "--out", "again", "--json"),
    "replay --json": ("replay", "run", "--json"),
    "doctor --json": ("doctor", "tiny_study.py", "--json"),
    "checklist --out": ("checklist", "run", "--out"),
    "report --out": ("report", "run", "--out"),
    "pack --out": ("pack", "run", "--out"),
    "export --out": ("export", "run", "--format", "sigstore", "--out"),
    "keygen --out": ("keygen", "--out"),
    "plan --out": ("plan", "tiny_study.py", "--out"),
    "timestamp request --out": ("timestamp", "request", "run", "--out"),
}

#: Looks like what each of the options writes.
LURE = json.dumps(
    dict.fromkeys(
        (
            *("verdict", "exit_code", "manifest_sha256", "checks", "equal", "findings", "rows"),
            *("recorded_sha256", "reproduced_sha256", "repeatable", "steps", "runs"),
        )
    )
)

LISTED = ("seed-0000/fork.safetensors", "code/tiny_study.py", "lure.json", "seed-0000/lure.json")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A user whose run lists files that look like reports; nothing else is in its folder."""
    shell = Shell.at(tmp_path / "user", keygen=False)
    run = shell.folder / "run"
    subject = [{"name": name, "digest": {"sha256": "0" * 64}} for name in (*LISTED, "missing")]
    for name in LISTED:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(LURE)
    payload = json.dumps({"subject": subject}).encode()
    (run / "manifest.json").write_bytes(sign_statement(payload, KEY))
    (run / "signer.pub").write_text(public_line(KEY))
    before = seen(shell.folder)
    yield shell
    assert seen(shell.folder) == before


def seen(folder: Path) -> dict[str, object]:
    """What lies in a folder: of every file its kind and content."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_ino,
            path.read_bytes() if path.is_file() else None,
        )
        for path in folder.rglob("*")
        if path.name != "target" and "target" not in path.parts
    }


def _link_to(to: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(to)


TARGETS: Mapping[str, Callable[[Path], object] | str] = {
    "the manifest": "run/manifest.json",
    "the manifest by a detour": "run/seed-0000/../manifest.json",
    "a snapshot": "run/seed-0000/fork.safetensors",
    "the code": "run/code/tiny_study.py",
    "a listed file that looks like a report": "run/lure.json",
    "one below a folder": "run/seed-0000/lure.json",
    "a listed file that is missing": "run/missing",
    "the key beside the manifest": "run/signer.pub",
    "a program": "tiny_study.py",
    "a folder": "run",
    "a folder with a slash": "run/",
    "the folder where one stands": ".",
    "a FIFO": os.mkfifo,
    "a link to the manifest": _link_to("run/manifest.json"),
    "a link to a listed file": _link_to("run/lure.json"),
    "a link to nowhere": _link_to("nowhere"),
    "a link to itself": _link_to("target"),
    "a file of somebody else": lambda path: path.write_text("precious"),
    "an empty file": Path.touch,
    "a name that is too long": "x" * 5000,
    "a name that is too long to be written": "x" * 250,
    "no name": "",
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_nothing_is_written_onto(shell: Shell, output: str, target: str) -> None:
    what = TARGETS[target]
    text = what if isinstance(what, str) else "target"
    path = shell.folder / "target"
    if not isinstance(what, str):
        what(path)
    before = path.lstat() if os.path.lexists(path) else None
    end = ("--", "true") if output.startswith("replay") else ()
    done = shell(*OUTPUTS[output], text, *end)
    assert done.code == 2
    assert done.out == ""
    assert OUTPUTS[output][-1] in done.line or text in done.line
    if before is not None:
        after = path.lstat()
        assert (after.st_mode, after.st_ino, after.st_size, after.st_mtime_ns) == (
            before.st_mode,
            before.st_ino,
            before.st_size,
            before.st_mtime_ns,
        )


def test_every_option_that_writes_a_file_is_attacked() -> None:
    with click.Context(main) as context:
        found = set(_writing("", main, context))
    # of these, `run` and `reproduce` take a folder, which must be a new one or their own
    assert found == {*OUTPUTS, "run --out", "reproduce --out"}


def _writing(name: str, command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        for part in command.list_commands(context):
            below = command.get_command(context, part)
            assert below is not None
            yield from _writing(f"{name} {part}".strip(), below, context)
    for option in command.params:
        if not getattr(option, "is_flag", False):
            yield from (f"{name} {text}" for text in option.opts if text in {"--json", "--out"})


def test_the_manual_tells_how_many_of_these_there_are() -> None:
    page = (Path(__file__).parents[2] / "auditkit/manual/limits.md").read_text(encoding="utf-8")
    n, options, targets = len(OUTPUTS) * len(TARGETS), len(OUTPUTS), len(TARGETS)
    assert f"each of {options} options that write a file is pointed at {targets} things" in page
    assert f"{n} of {n} are refused" in page


@pytest.mark.parametrize("what", ["listed", "a link", "a folder"])
def test_a_countersignature_replaces_nothing_else(
    small: Run, copied: Callable[[Run], Run], tmp_path: Path, what: str
) -> None:
    run = copied(small)
    shell = Shell.at(tmp_path / "verifier")
    options = ("--key", str(shell.write("author.pub", public_line(run.key) + "\n")))
    verify = ("verify", str(run.path), *options, "--replay", "none", "--countersign")
    key = str(shell.folder / "config" / "auditkit" / "key")
    assert shell(*verify, key).code == 0
    (written,) = run.folder.glob("countersign-*.json")
    assert shell(*verify, key).code == 0  # an earlier one of the same key is replaced
    kept = written.read_bytes()
    written.unlink()
    if what == "listed":
        written.write_bytes(b"{}")
    elif what == "a link":
        (run.folder.parent / "elsewhere").write_bytes(kept)
        written.symlink_to("../elsewhere")
    else:
        written.mkdir()
    before = written.lstat()
    done = shell(*verify, key)
    assert (done.code, done.out) == (2, "")
    assert done.line.startswith(f"--countersign '{written}': ")
    assert written.lstat() == before


def test_a_report_of_the_same_option_is_replaced(
    small: Run, copied: Callable[[Run], Run], tmp_path: Path
) -> None:
    run = copied(small)
    shell = Shell.at(tmp_path / "verifier")
    options = ("--key", str(shell.write("author.pub", public_line(run.key) + "\n")))
    for place in (run.folder / "report.json", shell.folder / "report.json"):
        for _ in range(2):
            verify = ("verify", str(run.path), *options, "--replay", "none")
            assert shell(*verify, "--json", str(place)).code == 0
        assert json.loads(place.read_bytes())["verdict"] == "integrity-only"
    done = shell("checklist", str(run.path), *options, "--out", str(shell.folder / "report.json"))
    assert (done.code, "is no checklist of this option" in done.line) == (2, True)
    for form in ("markdown", "latex", "markdown"):
        words = ("checklist", str(run.path), *options, "--format", form, "--out", "CHECKLIST.md")
        assert shell(*words).code == 0


@pytest.mark.parametrize("command", [("sign",), ("timestamp", "attach")])
def test_what_a_manifest_lists_gets_no_signature_and_a_link_stays_one(
    shell: Shell, command: tuple[str, ...]
) -> None:
    link = shell.folder / "target"
    link.symlink_to("run/manifest.json")
    for path, says in ((shell.folder / "run" / "lure.json", "lists it"), (link, "is a link")):
        done = shell(*command, str(path), *(("reply",) if "attach" in command else ()))
        assert (done.code, says in done.line, done.out) == (2, True, "")
    assert link.is_symlink()
