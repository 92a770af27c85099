"""Everything that a verifier set is in the report, and under a countersignature."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from studies import Run, check_files
from test_countersigning import REVIEWER, TIMES, signing

from auditkit.cli.tables import print_report
from auditkit.cli.verify_options import request_of
from auditkit.engines.spec import EngineSpec
from auditkit.formats import canonical
from auditkit.formats.statements import record_from_statement
from auditkit.formats.structure import from_dict, to_dict
from auditkit.records.report import SignedReport
from auditkit.records.settings import ArgumentSetting, VariableSetting, VerifierSettings
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.keys import private_key_bytes
from auditkit.verification.countersigning import countersign
from auditkit.verification.report_json import report_from_json
from auditkit.verification.request import VerifyRequest

#: What a verifier gave to the program.
GIVEN: dict[str, Any] = {
    "arguments": {"extra": "here"},
    "variables": {"SCALE": "3", "LIST": "a\nb"},
}

#: Where each field of a request is in the settings.
SETTING = {"trusted": "keys", "named": "keys", "set_aside": "keys"}

#: Settings that say how something was named that another setting holds.
ALSO = {"fingerprints"}


def settings(run: Run, **options: Any) -> VerifierSettings:
    found = check_files(run, **options).settings
    assert found is not None
    return found


def test_every_field_of_a_request_is_a_setting() -> None:
    asked = {SETTING.get(field.name, field.name) for field in fields(VerifyRequest)}
    assert asked | ALSO == {field.name for field in fields(VerifierSettings)}


def test_arguments_stand_beside_what_is_recorded(small: Run) -> None:
    given = {"extra": "somewhere", "other": f"{Path.home()}/data"}
    found = settings(small, arguments=given)
    assert found.arguments == (
        ArgumentSetting("extra", "somewhere", None),
        ArgumentSetting("other", "~/data", None),
    )
    assert "--arg extra=somewhere (not in the record)" in found.options


def test_variables_are_named_with_their_values(small: Run) -> None:
    found = settings(small, variables={"SCALE": "3", "DATA": f"--data={Path.home()}/data"})
    assert found.variables == (
        VariableSetting("DATA", "--data=~/data"),
        VariableSetting("SCALE", "3"),
    )
    assert "--env SCALE=3" in found.options


def test_an_engine_is_named_without_its_address(small: Run) -> None:
    assert settings(small).engine is None
    found = settings(small, engine=EngineSpec("dask", "tcp://node-of-mine:8786"))
    assert (found.engine, "--engine dask" in found.options) == ("dask", True)
    assert "node-of-mine" not in str(found)


def test_a_variable_is_printed_on_one_line(
    small: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_report(check_files(small, **GIVEN), everything=False)
    assert r"--env LIST=a\nb, --env SCALE=3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recorded", "says"),
    [
        (None, "--arg data=here (not in the record)"),
        ("there", "--arg data=here (there is recorded)"),
        ("here", "--arg data=here (as recorded)"),
    ],
)
def test_an_argument_is_told_from_the_records(recorded: str | None, says: str) -> None:
    assert str(ArgumentSetting("data", "here", recorded)) == says


def test_every_setting_is_printed_unless_it_is_the_default() -> None:
    assert VerifierSettings("all").options == ()
    everything = VerifierSettings(
        *("4", 2**60, 90.0, 0.01, (ArgumentSetting("data", "x", None),), ("python", "a.py")),
        *(3, True, True, 2, ("SHA256:abc",), ("00ff",)),
        variables=(VariableSetting("SCALE", "y"),),
        require="integrity-only",
        generalise_probe=True,
        pilot="ab" * 32,
        engine="ray",
    )
    text = "\n".join(everything.options)
    assert len(everything.options) == len(fields(VerifierSettings)) - len(ALSO)
    assert "--require integrity" in everything.options
    named = VerifierSettings("all", keys=("SHA256:a", "SHA256:b"), fingerprints=("SHA256:b",))
    assert named.options == ("--key SHA256:a", "--fingerprint SHA256:b")
    for part in ("4", str(2**60), "90s", "0.01", "data=x", "python a.py", "SHA256:abc", "00ff"):
        assert part in text
    assert "--env SCALE=y" in everything.options
    assert everything.given == ("--arg data=x (not in the record)", "--env SCALE=y")


def test_a_report_with_settings_comes_back_from_json(small: Run) -> None:
    for options in ({}, {"replay_seed": 2**60}, {"arguments": {"a": "b"}, "budget": 2}, GIVEN):
        report = check_files(small, **options)
        assert report_from_json(canonical.encode(report), what="report.json") == report


def test_a_countersignature_signs_them_and_later_readers_see_arguments(forged: Run) -> None:
    report = check_files(forged, arguments={"extra": "somewhere"}, threshold=1, strict=True)
    path = countersign(forged.folder, report, TIMES, signing(REVIEWER))
    payload = open_envelope(path.read_bytes()).payload
    assert record_from_statement(SignedReport, payload, what="c").report.settings == report.settings
    trusted = [*forged.trusted, signing(REVIEWER).trusted]
    (found,) = check_files(forged, trusted=trusted).countersignatures
    assert found.remark == "nothing was replayed, --arg extra=somewhere (not in the record)"


def test_a_countersignature_signs_variables_and_later_readers_see_them(forged: Run) -> None:
    report = check_files(forged, **GIVEN)
    path = countersign(forged.folder, report, TIMES, signing(REVIEWER))
    payload = open_envelope(path.read_bytes()).payload
    signed = record_from_statement(SignedReport, payload, what="c").report.settings
    assert signed is not None
    assert signed.variables == (VariableSetting("LIST", "a\nb"), VariableSetting("SCALE", "3"))
    trusted = [*forged.trusted, signing(REVIEWER).trusted]
    (found,) = check_files(forged, trusted=trusted).countersignatures
    assert found.remark.endswith(", --env SCALE=3")


def test_settings_of_an_earlier_build_have_no_variables(small: Run) -> None:
    told = to_dict(settings(small))
    assert told.pop("variables") == []
    assert from_dict(VerifierSettings, told, what="settings") == settings(small)


def test_a_countersignature_of_an_earlier_build_still_counts(forged: Run) -> None:
    report = replace(check_files(forged), settings=None)
    countersign(forged.folder, report, TIMES, signing(REVIEWER))
    trusted = [*forged.trusted, signing(REVIEWER).trusted]
    (found,) = check_files(forged, trusted=trusted).countersignatures
    assert (found.counts, found.remark) == (True, "nothing was replayed")


def test_keys_count_as_set_only_where_they_were_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    options: dict[str, Any] = {"amount": "none", "allow_code": False, "arguments": (), "jobs": None}
    options |= {"threshold": 1, "authorities": (), "strict": False, "fingerprint": ()}
    key = tmp_path / "key"
    key.write_bytes(private_key_bytes(REVIEWER))
    assert not request_of(tmp_path / "manifest.json", keys=(), **options).named
    assert request_of(tmp_path / "manifest.json", keys=(str(key),), **options).named
