"""A folder without a manifest says how it is gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_shell import Shell

from auditkit.errors import StoreError
from auditkit.files import recording_folder, run_folder
from auditkit.files.unfinished import refuse_unfinished

JOURNALS = {
    run_folder._JOURNAL: "auditkit run ... --resume",
    recording_folder._JOURNAL: "Recorder.resume(...), or end it: auditkit close DIR",
    recording_folder._LOCK: "Recorder.resume(...), or end it: auditkit close DIR",
}


@pytest.mark.parametrize("journal", JOURNALS)
def test_what_has_not_ended_is_told_from_what_is_not_there(tmp_path: Path, journal: str) -> None:
    manifest = tmp_path / "manifest.json"
    refuse_unfinished(manifest)
    (tmp_path / journal).touch()
    with pytest.raises(StoreError, match="an unfinished") as caught:
        refuse_unfinished(manifest)
    assert caught.value.hint == f"go on with {JOURNALS[journal]}"
    manifest.touch()
    refuse_unfinished(manifest)


def test_every_command_that_takes_a_manifest_says_so(tmp_path: Path) -> None:
    shell = Shell.at(tmp_path / "user", keygen=False)
    shell.write("run/run.json.partial", "{}")
    for command in (("verify",), ("show",), ("checklist",), ("pack",), ("sign",)):
        for place in ("run", "run/manifest.json"):
            done = shell(*command, place)
            assert (done.code, done.line) == (
                2,
                "run: an unfinished run, without a manifest; go on with auditkit run ... --resume",
            )


def test_a_path_that_leads_nowhere_says_which_runs_there_are(tmp_path: Path) -> None:
    shell = Shell.at(tmp_path / "user", keygen=False)
    lines = [[name, "runs 1/x"] for name in ("show", "verify", "checklist")]
    lines += [["replay", "runs 1/x", "--", "true"], ["diff", "runs 1/x", "runs 1/x"]]
    for line in lines:  # nothing lies there
        assert shell(*line).line == "cannot read 'runs 1/x': No such file or directory"
    shell.write("runs 1/exp1/manifest.json", "{}")
    hint = "; auditkit list 'runs 1' shows the runs that there are"
    for line in lines:
        done = shell(*line)
        text = f"cannot read 'runs 1/x': No such file or directory{hint}"
        assert (done.code, done.line) == (2, text), line
    for path in ("runs 1", "runs 1/x/manifest.json"):  # no manifest in it, no folder around it
        assert shell("show", path).line.endswith(hint)
