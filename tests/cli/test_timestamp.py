"""``auditkit timestamp``: requests are written, replies attached; nothing is sent."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_shell import Shell, names_in
from timestamp_authority import Authority, make_authority, needs_openssl

from auditkit.signing import timestamps
from auditkit.signing.envelopes import add_signature, open_envelope, sign_statement
from auditkit.signing.keys import fingerprint, generate_key

AUTHOR, REPRODUCER = generate_key(), generate_key()
STATEMENT = b'{"predicateType":"urn:auditkit:plan:v1"}'


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "plan.json").write_bytes(sign_statement(STATEMENT, AUTHOR))
    return Shell(folder)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "tsa")


def answer(shell: Shell, authority: Authority, name: str = "plan.tsq") -> None:
    """What the user does with curl."""
    path = shell.folder / name
    path.with_suffix(".tsr").write_bytes(authority.stamp(path.read_bytes()))


def stamps(shell: Shell) -> list[int]:
    envelope = open_envelope((shell.folder / "plan.json").read_bytes())
    return [len(signature.timestamps) for signature in envelope.signatures]


def test_a_request_tells_how_to_send_it(shell: Shell) -> None:
    done = shell("timestamp", "request", "plan.json", "--out", "a request.tsq")
    assert done.code == 0
    assert done.out.splitlines() == [
        f"request: a request.tsq, for the signature by {fingerprint(AUTHOR)}",
        "send it to an authority of your choice, then attach its reply:",
        "  curl -H 'Content-Type: application/timestamp-query' --data-binary '@a request.tsq' "
        "-o 'a request.tsr' AUTHORITY_URL",
        "  auditkit timestamp attach plan.json 'a request.tsr'",
    ]
    again = shell("timestamp", "request", "plan.json", "--out", "a request.tsq")
    assert again.code == 2  # a request that was sent already is not overwritten
    assert again.line == (
        "'a request.tsq' exists already: a request for this very signature; "
        "send that one, or name another file with --out"
    )
    assert shell("timestamp", "request", "plan.json").out.startswith("request: plan.tsq, for")
    assert names_in(shell.folder) == ["a request.tsq", "plan.json", "plan.tsq"]


@needs_openssl
def test_a_signature_that_is_added_while_a_reply_is_judged_is_kept(
    shell: Shell, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("timestamp", "request", "plan.json")
    answer(shell, authority)
    path, judge = shell.folder / "plan.json", timestamps.check_timestamp

    def slow(*arguments: Any) -> Any:
        path.write_bytes(add_signature(path.read_bytes(), REPRODUCER))
        return judge(*arguments)

    monkeypatch.setattr(timestamps, "check_timestamp", slow)
    root = str(authority.root_file)
    done = shell("timestamp", "attach", "plan.json", "plan.tsr", "--authority", root)
    assert (done.code, stamps(shell)) == (0, [1, 0])


def test_a_request_does_not_lie_among_the_files_of_a_run(shell: Shell) -> None:
    (shell.folder / "run").mkdir()
    (shell.folder / "plan.json").rename(shell.folder / "run" / "manifest.json")
    done = shell("timestamp", "request", "run/manifest.json")
    assert done.out.splitlines()[-1] == "  auditkit timestamp attach run/manifest.json manifest.tsr"
    assert names_in(shell.folder) == ["manifest.tsq", "run"]
    assert names_in(shell.folder / "run") == ["manifest.json"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda path: path.write_bytes(timestamps.request(b"another")),
            "exists already: a request for another signature; name another file with --out",
        ),
        (lambda path: path.write_bytes(b"notes"), "exists already, and is no time stamp request"),
        (lambda path: path.mkdir(), "exists already, and is no time stamp request"),
        (lambda path: path.symlink_to("nowhere"), "exists already, and is no time stamp request"),
    ],
)
def test_what_lies_where_a_request_was_to_go_is_told_and_stays(
    shell: Shell, make: Callable[[Path], object], said: str
) -> None:
    path = shell.folder / "plan.tsq"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    done = shell("timestamp", "request", "plan.json")
    assert done.code == 2
    assert f"'plan.tsq' {said}" in done.line
    assert before is None or path.read_bytes() == before


def test_a_request_that_cannot_be_written_for_another_reason_says_that(shell: Shell) -> None:
    done = shell("timestamp", "request", "plan.json", "--out", "none/plan.tsq")
    assert (done.code, "there is no folder 'none'" in done.line) == (2, True)


@needs_openssl
def test_a_runs_folder_stands_for_its_manifest(shell: Shell, authority: Authority) -> None:
    (shell.folder / "run").mkdir()
    (shell.folder / "plan.json").rename(shell.folder / "run" / "manifest.json")
    done = shell("timestamp", "request", "run")
    assert done.out.splitlines()[-1] == "  auditkit timestamp attach run manifest.tsr"
    answer(shell, authority, "manifest.tsq")
    assert shell("timestamp", "attach", "run", "manifest.tsr").code == 0
    envelope = open_envelope((shell.folder / "run" / "manifest.json").read_bytes())
    assert len(envelope.signatures[0].timestamps) == 1


@needs_openssl
def test_a_reply_is_attached_and_checked_where_a_root_is_given(
    shell: Shell, authority: Authority
) -> None:
    shell("timestamp", "request", "plan.json")
    answer(shell, authority)
    before = (shell.folder / "plan.json").read_bytes()
    root = str(authority.root_file)
    checked = shell("timestamp", "attach", "plan.json", "plan.tsr", "--authority", root)
    assert checked.code == 0
    first, second = checked.out.splitlines()
    assert first == f"attached to the signature by {fingerprint(AUTHOR)}"
    assert second.endswith("Z, says CN=Test Authority")
    assert stamps(shell) == [1]
    again = shell("timestamp", "attach", "plan.json", "plan.tsr")
    assert "nothing was written" in again.out
    (shell.folder / "plan.json").write_bytes(before)
    unchecked = shell("timestamp", "attach", "plan.json", "plan.tsr")
    assert unchecked.out.splitlines()[1].startswith("not verified: ")
    assert stamps(shell) == [1]


@needs_openssl
def test_the_signature_is_named_where_there_are_several(shell: Shell, authority: Authority) -> None:
    path = shell.folder / "plan.json"
    path.write_bytes(add_signature(path.read_bytes(), REPRODUCER))
    done = shell("timestamp", "request", "plan.json")
    assert done.code == 2
    assert done.line.endswith("say which with --by")
    done = shell("timestamp", "request", "plan.json", "--by", fingerprint(REPRODUCER))
    assert done.code == 0
    answer(shell, authority)
    assert shell("timestamp", "attach", "plan.json", "plan.tsr").code == 0
    assert stamps(shell) == [0, 1]


@needs_openssl
def test_a_stamp_that_another_authority_gave_is_not_attached(
    shell: Shell, authority: Authority, tmp_path: Path
) -> None:
    shell("timestamp", "request", "plan.json")
    answer(shell, authority)
    other = make_authority(tmp_path / "other")
    root = str(other.root_file)
    done = shell("timestamp", "attach", "plan.json", "plan.tsr", "--authority", root)
    assert (done.code, stamps(shell)) == (1, [0])
    assert done.line.startswith("plan.tsr: the time stamp is not signed by a trusted authority")


@needs_openssl
def test_a_stamp_of_something_else_is_not_attached(shell: Shell, authority: Authority) -> None:
    (shell.folder / "plan.tsq").write_bytes(timestamps.request(b"something else"))
    answer(shell, authority)
    done = shell("timestamp", "attach", "plan.json", "plan.tsr")
    assert (done.code, stamps(shell)) == (1, [0])
    assert done.line == "plan.tsr: the time stamp is of none of the signatures in plan.json"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"", "it is empty"),
        (b"<html>", "it is text"),
        (b"\x30\xff", "ParseError"),
        (timestamps.request(b"any"), "it is a time stamp request, no reply"),
        (bytes(timestamps.MAX_REPLY_BYTES + 1), "longer than"),
    ],
    ids=["empty", "text", "cut", "a request", "too long"],
)
def test_what_is_no_reply_is_malformed(shell: Shell, reply: bytes, said: str) -> None:
    (shell.folder / "plan.tsr").write_bytes(reply)
    done = shell("timestamp", "attach", "plan.json", "plan.tsr")
    assert (done.code, stamps(shell)) == (5, [0])
    assert done.line.startswith("plan.tsr: ")
    assert said in done.line


def test_files_in_the_wrong_order_are_told_by_the_name_of_the_first(shell: Shell) -> None:
    (shell.folder / "plan.tsr").write_bytes(timestamps.request(b"any"))
    done = shell("timestamp", "attach", "plan.tsr", "plan.json")
    assert done.code == 5
    assert done.line.startswith("plan.tsr: ")


@pytest.mark.parametrize(("data", "code"), [(b"{}", 5), (None, 2)])
def test_a_file_that_is_not_ours_is_left_alone(shell: Shell, data: bytes | None, code: int) -> None:
    path = shell.folder / "plan.json"
    path.unlink() if data is None else path.write_bytes(data)
    assert shell("timestamp", "request", "plan.json").code == code
    assert not (shell.folder / "plan.tsq").exists()


@pytest.mark.parametrize("command", ["request", "attach"])
def test_a_missing_package_is_said_so(
    shell: Shell, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    monkeypatch.delitem(sys.modules, "auditkit.signing.timestamps")
    arguments = [command, "plan.json", "reply"][: 2 if command == "request" else 3]
    done = shell("timestamp", *arguments)
    assert done.code == 2
    assert "rfc3161_client" in done.line
    assert 'pip install "auditkit[timestamp]"' in done.line
