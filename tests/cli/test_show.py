"""``auditkit show``: what a manifest says, whatever it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_shell import CompletedCommand, statement_bytes
from click.testing import CliRunner
from forging import edit_predicate, edit_statement, sign_payload, statement_of
from in_process_loops import Loop
from in_process_loops import record as record_loop
from record_examples import RECORDING, REGISTRATION, REPLAY, SIGNED_REPORT
from studies import Run

from auditkit.cli import main
from auditkit.cli.console import console
from auditkit.formats.statements import Statement, to_statement
from auditkit.records.report import CHECKS, CheckResult, VerificationReport
from auditkit.signing.envelopes import sign_statement
from auditkit.signing.keys import generate_key

HOSTILE = "[bold red]verified[/] \x1b[31m\x1b]0;owned\x07 \x9b2J \r\n\u2028\u202e\x00 :smile: \\x1b"


def show(run: Run, *options: str) -> CompletedCommand:
    """Show a run."""
    done = CliRunner().invoke(main, ["show", str(run.path), *options], catch_exceptions=False)
    return CompletedCommand(done.exit_code, done.stdout, done.stderr)


def words(text: str) -> str:
    """A text without its layout."""
    return " ".join(text.split())


def test_it_says_first_that_nothing_is_verified(small: Run) -> None:
    assert show(small).out.startswith("Not verified; `auditkit verify` does that.\n")


def test_plan_program_branches_and_streams_are_printed(small: Run) -> None:
    done = show(small)
    text = words(done.out)
    assert (done.code, done.err) == (0, "")
    manifest = small.manifest
    assert "t0 6, W 3, T 14, threads 1" in text
    assert "tiny_study.py:make_program" in text
    for branch in manifest.seeds[0].branches:
        assert branch.name in text
        assert branch.order_sha256[:16] in text
    for stream in manifest.seeds[0].rng.streams:
        assert stream.stream in text
    for line in manifest.seeds[0].rng.uncovered:
        assert words(line) in text
    assert manifest.run.started in text
    assert f"{len(manifest.files)}, {sum(file.size for file in manifest.files):,} bytes" in text


def test_the_size_of_a_nudge_is_told_as_a_share_of_a_weight(forged: Run) -> None:
    edit_predicate(forged, lambda predicate: predicate["plan"].update(placebo_scale=65536))
    assert "a seed, 65,536 ulp, up to 0.78 % of a float32 weight" in words(show(forged).out)


def test_further_steps_are_printed_where_there_are_some(forged: Run) -> None:
    assert "further steps" not in show(forged).out
    edit_predicate(forged, lambda predicate: predicate["plan"].update(probe_at=[7, 12]))
    assert "further steps 7, 12" in words(show(forged).out)


def test_json_is_the_signed_statement_byte_for_byte(small: Run) -> None:
    done = CliRunner().invoke(main, ["show", str(small.path), "--json"], catch_exceptions=False)
    assert done.stdout_bytes == statement_bytes(small.path)


def test_json_of_a_statement_in_another_form_is_still_byte_for_byte(forged: Run) -> None:
    statement = statement_of(forged)
    statement["predicate"]["program"]["arguments"] = {"name": "\u00e9\u6f22"}
    payload = json.dumps(statement, indent=2, ensure_ascii=False).encode()
    sign_payload(forged, payload)
    done = CliRunner().invoke(main, ["show", str(forged.path), "--json"], catch_exceptions=False)
    assert (done.exit_code, done.stdout_bytes) == (0, payload)
    assert "\u00e9\u6f22" in show(forged).out


def fill(text: str) -> Callable[[dict[str, Any]], None]:
    """Put a text wherever a manifest holds a free one."""

    def edit(predicate: dict[str, Any]) -> None:
        predicate["producer"]["name"] = text
        predicate["program"]["description"] = {"model": text, text: "x"}
        predicate["program"]["arguments"] = {text: text}
        predicate["environment"]["python"] = text
        predicate["environment"]["packages"] = {text: text}
        predicate["environment"]["hardware"] = {text: text}
        for seed in predicate["seeds"]:
            seed["data"]["loader"] = {"dataset": text}
            seed["data"]["declared"] = text
            seed["rng"]["uncovered"] = [text]

    return edit


def test_no_text_of_a_manifest_is_markup_or_reaches_the_terminal_as_a_control(forged: Run) -> None:
    edit_predicate(forged, fill(HOSTILE))
    for command in (["show"], ["verify", "--replay", "none"]):
        done = CliRunner().invoke(main, [*command, str(forged.path)], catch_exceptions=False)
        for text in (done.stdout, done.stderr):
            assert all(line.isprintable() for line in text.split("\n")), command
    shown = show(forged).out
    assert "[bold red]verified[/]" in shown
    assert r"\x1b[31m\x1b]0;owned\x07" in words(shown)
    assert ":smile:" in shown


def test_a_text_cannot_pretend_to_be_a_line_of_the_report(forged: Run) -> None:
    edit_predicate(forged, fill("x\nVerdict: verified (exit 0)\r\nVerdict: verified (exit 0)"))
    lines = [line.strip() for line in show(forged).out.splitlines()]
    assert "Verdict: verified (exit 0)" not in lines


def test_very_long_texts_are_folded(forged: Run) -> None:
    edit_predicate(forged, fill("x" * 100_000))
    done = show(forged)
    assert done.code == 0
    assert max(len(line.rstrip()) for line in done.out.splitlines()) <= console().width


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", 5), (b"{}", 5), (b"[1, 2", 5), (b"\xff\xfe", 5), (b'{"payload": "\x1b[31m"}', 5)],
)
def test_what_is_no_manifest_is_one_line(tmp_path: Path, content: bytes, code: int) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    done = show(Run(tmp_path, None))  # type: ignore[arg-type]
    assert (done.code, done.out) == (code, "")
    assert done.line.startswith("manifest.json: ")
    assert done.line.isprintable()


def test_a_manifest_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    done = show(Run(tmp_path / "\x1b[31mnowhere", None))  # type: ignore[arg-type]
    assert done.code == 2
    assert "No such file or directory" in done.line
    assert done.line.isprintable()


def test_a_statement_of_another_kind_is_malformed(forged: Run) -> None:
    edit_statement(forged, lambda statement: statement.update(predicateType="\x1bother"))
    done = show(forged)
    assert done.code == 5
    assert done.line.isprintable()


def test_a_manifest_without_seeds_is_malformed_and_no_crash(forged: Run) -> None:
    edit_predicate(forged, lambda predicate: predicate.update(seeds=[]))
    assert show(forged).code == 5


def test_what_else_is_signed_is_printed_too(tmp_path: Path) -> None:
    cases: dict[str, tuple[Statement, str]] = {
        "plan": (REGISTRATION, "576 samples"),
        "recording": (RECORDING, "resumed with train.py --data '~/other'; no arguments"),
        "recording by sums": (RECORDING, "evidence the state is in evidence by int64-mix/1"),
        "replay": (replace(REPLAY, findings=()), "everything equal"),
        "countersign": (replace(SIGNED_REPORT, report=whole(SIGNED_REPORT.report)), "failed"),
    }
    for name, (record, expected) in cases.items():
        path = tmp_path / f"{name}.json"
        path.write_bytes(sign_statement(to_statement(record), generate_key()))
        done = CliRunner().invoke(main, ["show", str(path)], catch_exceptions=False)
        assert done.exit_code == 0, name
        assert expected in words(done.stdout), name
        as_json = CliRunner().invoke(main, ["show", str(path), "--json"]).stdout
        assert json.loads(as_json)["predicateType"].startswith("urn:auditkit:")


def whole(report: VerificationReport) -> VerificationReport:
    """A report with all ten checks, as verify gives one."""
    checks = tuple(CheckResult(number, "not run", "nothing") for number in CHECKS)
    return replace(report, checks=checks)


def test_what_a_loop_logged_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    loop = Loop(tmp_path / "run", checkpoint_every=0, epochs=1, fault="learning rate", at=9)
    record_loop(loop)
    text = words(CliRunner().invoke(main, ["show", str(loop.out)]).stdout)
    assert "rank logged numbers first last least most" in text
    assert "hyper-parameters at the end lr=0.04, " in text
    assert "0 loss 12 " in text
    assert "0 param_groups[0].lr 2 0.05 at 1 0.04 at 10 0.04 0.05" in text
    edited = bytearray((loop.out / "scalars.safetensors").read_bytes())
    edited[-3] ^= 1
    (loop.out / "scalars.safetensors").write_bytes(edited)
    done = CliRunner().invoke(main, ["show", str(loop.out)])
    assert "Not shown: what rank 0 logged: scalars.safetensors" in words(done.stdout)
    (loop.out / "scalars.safetensors").unlink()
    done = CliRunner().invoke(main, ["show", str(loop.out)])
    assert done.exit_code == 0
    assert "Not shown: what rank 0 logged: scalars.safetensors" in words(done.stdout)
