"""What earlier builds made still verifies, and would be made again: ``golden/VERSION``.

The key that signed them was thrown away. Bits depend on hardware and versions, so where a record
is of another environment, a replay is held to what can be asked there: that it says so.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_shell import Shell, content, timeless

GOLDEN = Path(__file__).parent / "golden" / "0.1"
SIGNER = "SHA256:misYNh4ou1jAUAK6f0d9edlHa9l/SV0YhUQIEEsZEVE"
TRUST = ("--fingerprint", SIGNER)

#: Called with the arguments of a command; gives its exit code and what it wrote as JSON.
Call = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    shell = Shell.at(tmp_path_factory.mktemp("golden") / "user")
    shutil.copytree(GOLDEN, shell.folder / "golden")
    return shell


@pytest.fixture
def call(shell: Shell) -> Call:
    def call(*arguments: str) -> tuple[int, Any]:
        """In a process of its own, as are its workers."""
        split = arguments.index("--") if "--" in arguments else len(arguments)
        command = [*arguments[:split], "--json", "-", *arguments[split:]]
        process = shell.start(*command)
        out, err = process.communicate()
        assert process.returncode in (0, 1, 6), err
        return process.returncode, json.loads(out)

    return call


@pytest.fixture
def read(shell: Shell) -> Call:
    def read(*arguments: str) -> tuple[int, Any]:
        """In this process, where none of its workers is asked for."""
        done = shell(*arguments, "--json", "-")
        return done.code, json.loads(done.out)

    return read


@pytest.fixture(scope="module")
def again(shell: Shell) -> Path:
    """The same study, made by the build that is tested."""
    shutil.copy(GOLDEN / "study" / "code" / "study.py", shell.folder)
    process = shell.start("run", "study.py", "--out", "again")
    _, err = process.communicate()
    assert process.returncode == 0, err
    return shell.folder / "again"


@pytest.fixture(scope="module")
def same_environment(again: Path) -> bool:
    """Whether bits may be expected to be the recorded ones."""
    old, new = (timeless(folder / "manifest.json") for folder in (GOLDEN / "study", again))
    return bool(old["predicate"]["environment"] == new["predicate"]["environment"])


@pytest.mark.parametrize("kind", ["study", "recording"])
def test_it_verifies_without_replay(read: Call, kind: str) -> None:
    replay = ("--replay", "none") if kind == "study" else ()
    code, report = read("verify", f"golden/{kind}/manifest.json", *TRUST, *replay)
    assert (code, report["verdict"]) == (0, "integrity-only")


@pytest.mark.parametrize("kind", ["study", "recording"])
def test_one_bit_of_a_trace_and_it_does_not(shell: Shell, read: Call, kind: str) -> None:
    shutil.copytree(GOLDEN / kind, shell.folder / "edited" / kind)
    trace = next((shell.folder / "edited" / kind).rglob("*trace*/*.safetensors"), None)
    trace = trace or next((shell.folder / "edited" / kind).rglob("*.trace.safetensors"))
    data = bytearray(trace.read_bytes())
    data[-1] ^= 1
    trace.write_bytes(bytes(data))
    code, report = read("verify", f"edited/{kind}/manifest.json", *TRUST, "--replay", "none")
    failed = [check["number"] for check in report["checks"] if check["status"] == "failed"]
    assert code == 1
    assert 3 in failed


def test_the_study_verifies_by_replay(call: Call, same_environment: bool) -> None:
    manifest = "golden/study/manifest.json"
    code, report = call("verify", manifest, *TRUST, "--allow-code")
    if same_environment:
        assert (code, report["verdict"]) == (0, "verified")
        assert report["estimates"]["n_seeds"] == 2
    else:
        assert (code, report["verdict"]) in [(0, "verified"), (6, "undecided")]


def test_the_recording_replays(shell: Shell, call: Call, same_environment: bool) -> None:
    shutil.copy(GOLDEN / "recording" / "code" / "loop.py", shell.folder)
    manifest = "golden/recording/manifest.json"
    code, found = call("replay", manifest, *TRUST, "--", sys.executable, "loop.py")
    if same_environment:
        assert (code, found["equal"]) == (0, True)
    else:
        assert code in (0, 6)


def test_the_same_study_makes_the_same_manifest_and_files(
    again: Path, same_environment: bool
) -> None:
    if not same_environment:
        pytest.skip("the golden study was made with other versions or on other hardware")
    made = timeless(again / "manifest.json")
    # What later builds say besides.
    assert made["predicate"].pop("opened") == {"files": [], "left_out": 0}
    assert made["predicate"].pop("extends") == []
    for seed in made["predicate"]["seeds"]:
        assert all(branch.pop("evaluated_on") for branch in seed["branches"])
        measured = {branch["name"]: branch.pop("samples") for branch in seed["branches"]}
        assert [name for name, file in measured.items() if file] == ["control", "order-reverse"]
        assert all(branch.pop("reset", None) in (None, []) for branch in seed["branches"])
        # Of torch's own Adam version 2 is what version 1 was, to the bit.
        adam = next(b for b in seed["branches"] if b["name"].startswith("adam-reset"))
        assert adam["version"] == 2
        adam["version"] = 1
    files = made["predicate"]["files"]
    names = {file["name"] for file in files if file["role"] == "samples"}
    made["predicate"]["files"] = [file for file in files if file["name"] not in names]
    made["subject"] = [subject for subject in made["subject"] if subject["name"] not in names]
    assert made == timeless(GOLDEN / "study" / "manifest.json")
    found = {name: data for name, data in content(again).items() if name not in names}
    assert found == content(GOLDEN / "study")
