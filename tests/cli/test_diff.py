"""``auditkit diff``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import forging
import pytest
from cli_shell import CompletedCommand
from click.testing import CliRunner
from idle_loops import IdleLoop
from in_process_loops import Loop as InProcessLoop
from in_process_loops import record
from studies import Run
from synthetic_recordings import Loop, Recording, write_recording

from auditkit.cli import diff as module
from auditkit.cli import main
from auditkit.cli.console import console
from auditkit.cli.diff import _print_traces
from auditkit.diagnose.run_difference import TraceDifference
from auditkit.signing.keys import PrivateKey

HOSTILE = "[bold red]same[/] \x1b[31m\x1b]0;owned\x07 \r\n\u2028\u202e\x00"


def diff(*arguments: Run | Path | str) -> CompletedCommand:
    """Compare two runs."""
    names = [str(a.folder if isinstance(a, Run) else a) for a in arguments]
    done = CliRunner().invoke(main, ["diff", *names], catch_exceptions=False)
    return CompletedCommand(done.exit_code, done.stdout, done.stderr)


def words(text: str) -> str:
    """A text without its layout."""
    return " ".join(text.split())


@pytest.fixture
def pair(tmp_path: Path, key: PrivateKey) -> tuple[Recording, Recording]:
    """Two recordings that part at step 4 and have a checkpoint after it."""
    loop = Loop(checkpoints=(4,))
    left = write_recording(tmp_path / "a", key, loop)
    right = write_recording(tmp_path / "b", key, Loop(checkpoints=(4,), state_at=4))
    return left, right


def test_the_same_is_exit_0(pair: tuple[Recording, Recording]) -> None:
    done = diff(pair[0], pair[0].path)
    assert (done.code, done.err) == (0, "")
    assert "Not verified; `auditkit verify` does that." in done.out
    assert done.out.splitlines()[-1] == "A and B are the same"


def test_different_is_exit_1_and_says_where_and_how_far(
    pair: tuple[Recording, Recording], tmp_path: Path
) -> None:
    done = diff(*pair)
    text = words(done.out)
    assert (done.code, done.err) == (1, "")
    assert "rank 0: step 3 made another params, seen before step 4 (state drift)" in text
    assert "rank 0 5 params 0.5 0.0909 weight 1" in text
    later = diff(
        pair[0], write_recording(tmp_path / "c", pair[0].key, Loop(batch_at=2, state_at=3))
    )
    told = "rank 0: step 2 took another batch: the same samples in the same order, with other bytes"
    assert told in words(later.out)
    assert "and from a later step on: params 3" in words(later.out)
    assert "The same: environment; code; program" in text
    assert done.out.splitlines()[-1] == "A and B differ"


def test_json_is_one_object_as_the_module_says(pair: tuple[Recording, Recording]) -> None:
    done = diff(*pair, "--json")
    found: dict[str, Any] = json.loads(done.out)
    assert done.code == 1
    told = (module.__doc__ or "").partition("::")[2]
    (trace,) = found["traces"]
    (component,) = trace["distance"]["components"]
    for part in (found, trace, trace["distance"], component):
        assert all(f'"{name}":' in told for name in part)
    assert (found["same"], trace["step"], component["absolute"]) == (False, 4, 0.5)
    assert json.loads(diff(pair[0], pair[0], "--json").out)["same"] is True


def test_only_what_matters_sets_the_exit_code(
    pair: tuple[Recording, Recording], tmp_path: Path
) -> None:
    other = write_recording(
        tmp_path / "c",
        pair[0].key,
        Loop(checkpoints=(4,)),
        lambda manifest: replace(manifest, command=("train.py", "--out", "c"), seed=3),
    )
    done = diff(pair[0], other)
    assert (done.code, done.out.splitlines()[-1]) == (1, "A and B differ")
    done = diff(pair[0], other, "--ignore", "seed,code")
    last = "A and B are the same but for: command, seed"
    assert (done.code, done.out.splitlines()[-1]) == (0, last)
    assert "Note: command: train.py --epochs 1; train.py --out c" in words(done.out)
    assert diff(*pair, "--ignore", "environment", "--ignore", "code").code == 1
    done = diff(*pair, "--ignore", "traces")
    assert done.code == 2
    assert "one of command, environment" in done.line


def test_streams_that_nobody_seeds_and_nobody_draws_from_are_a_note(tmp_path: Path) -> None:
    for name, loop in {"a": {}, "b": {}, "c": {"halved_at": 3}}.items():
        IdleLoop(tmp_path / name, **loop)()
    done = diff(tmp_path / "a", tmp_path / "b")
    assert done.code == 0, done.out
    told = "Note: rank 0: rng/numpy, rng/python began elsewhere, and nothing drew from there"
    assert told in words(done.out)
    text = words(diff(tmp_path / "a", tmp_path / "c").out)
    assert "rank 0: step 3 made another param_groups, seen before step 4 (state drift)" in text
    assert "RNG drift" not in text


def test_where_streams_that_nobody_draws_from_stood_is_in_no_table_of_sizes(
    tmp_path: Path,
) -> None:
    for name, lr in {"a": 0.5, "b": 0.25}.items():
        IdleLoop(tmp_path / name, lr=lr, every=2)()
    done = diff(tmp_path / "a", tmp_path / "b", "--json")
    (trace,) = json.loads(done.out)["traces"]
    components = [apart["component"] for apart in trace["distance"]["components"]]
    assert components == ["grad", "param_groups", "params"]


def test_a_learning_rate_is_told_in_numbers(tmp_path: Path) -> None:
    loop = InProcessLoop(tmp_path / "a", checkpoint_every=0, epochs=1)
    record(loop)
    record(replace(loop, out=tmp_path / "b", fault="learning rate", at=9))
    text = words(diff(tmp_path / "a", tmp_path / "b").out)
    assert "rank 0: lr 0.05 -> 0.04 from step 10 on (param_groups[0])" in text
    assert "rank 0: step 9 made another param_groups, seen before step 10 (state drift" in text
    assert "param_groups[0].lr 0.05 0.04" in text
    assert "logged rank 0: loss at step 10 " in text
    assert "what rank 0 logged" in words(diff(tmp_path / "a", tmp_path / "a").out)


def test_branches_of_a_study_are_named_after_a_number_sign(small: Run) -> None:
    done = diff(f"{small.folder}#seed-0/control", f"{small.folder}#seed-0/momentum-reset")
    assert done.code == 1
    assert "optimizer/momentum_buffer" in done.out
    assert "mean total variation" in done.out
    assert diff(f"{small.folder}#seed-0/control", f"{small.folder}#seed-0/replica").code == 0


def test_wrong_use_is_one_line_and_exit_2(small: Run, tmp_path: Path) -> None:
    for name in (tmp_path / "nowhere", tmp_path, f"{small.folder}#seed-9/control"):
        done = diff(name, small)
        assert (done.code, done.out) == (2, "")
        assert done.line.isprintable()
    assert CliRunner().invoke(main, ["diff", str(small.folder)]).exit_code == 2


def test_malformed_is_one_line_and_exit_5(pair: tuple[Recording, Recording]) -> None:
    (pair[0].folder / "trace/000000.safetensors").write_bytes(b"\xff" * 99)
    done = diff(*pair)
    assert (done.code, done.out) == (5, "")
    assert "000000.safetensors" in done.line
    pair[1].path.write_bytes(b"\x1b{")
    done = diff(pair[1], pair[1])
    assert done.code == 5
    assert done.line.isprintable()


def test_no_text_of_a_manifest_is_markup_or_reaches_the_terminal_as_a_control(
    pair: tuple[Recording, Recording],
) -> None:
    def edit(predicate: dict[str, Any]) -> None:
        predicate["command"] = [HOSTILE, "x" * 10_000]
        predicate["program"]["description"] = {HOSTILE: HOSTILE}
        predicate["ranks"][0]["loaders"] = {"": {HOSTILE: HOSTILE}}
        predicate["producer"]["name"] = HOSTILE

    forging.edit_predicate(pair[1], edit)
    done = diff(*pair)
    assert done.code == 1
    assert all(line.isprintable() for line in done.out.split("\n"))
    assert "[bold red]same[/]" in done.out
    assert max(len(line.rstrip()) for line in done.out.splitlines()) <= console().width


def test_long_lists_are_cut_but_not_in_json(pair: tuple[Recording, Recording]) -> None:
    many = {f"package-{number:03d}": "1" for number in range(100)}
    forging.edit_predicate(
        pair[1], lambda predicate: predicate["environment"].update(packages=many)
    )
    done = diff(*pair)
    assert "... and 62 more; --json has them all" in done.out
    assert len(json.loads(diff(*pair, "--json").out)["fields"]) == 102


def test_branches_that_part_alike_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    one = TraceDifference(
        trace="seed 0, control",
        kind="state drift",
        step=3,
        made_by=2,
        text="step 2 made another params (state drift)",
        component="params",
        others=(),
        first_steps={"params": 3, "grad": 4},
        settings=(),
        sample=None,
        distance=None,
    )
    alike = [replace(one, trace=f"seed {seed}, control") for seed in range(5)]
    other = replace(one, trace="seed 0, carry", text="step 5 made another loss (state drift)")
    _print_traces(console(), [*alike, other])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "seed 0, control; seed 1, control; and 3 more alike: step 2 made another params (state "
        "drift)",
        "  and from a later step on: grad 4",
        "seed 0, carry: step 5 made another loss (state drift)",
        "  and from a later step on: grad 4",
    ]
