from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_studies import Size, write_study

from auditkit.files import artifacts
from auditkit.signing.keys import TrustedKey, fingerprint, generate_key
from auditkit.verification.procedure import VerifyRequest, verify


def test_what_the_content_checks_have_read_whole_is_not_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = generate_key()
    manifest = write_study(tmp_path / "study", key, Size(seeds=2))
    hashed: list[str] = []
    file_sha256 = artifacts.file_sha256

    def noted(root: str | Path, name: str, *, expected_size: int | None = None) -> str:
        hashed.append(name)
        return file_sha256(root, name, expected_size=expected_size)

    monkeypatch.setattr(artifacts, "file_sha256", noted)
    trusted = [TrustedKey(fingerprint(key), key.public_key(), "test", own=True)]
    assert verify(manifest, VerifyRequest(trusted, replay="none")).exit_code == 0
    read = ("trace.safetensors", "outcome.safetensors", "order.safetensors")
    assert [name for name in hashed if name.endswith(read)] == []
    assert any(name.endswith("fork.safetensors") for name in hashed)

    hashed.clear()
    edited = min(manifest.parent.rglob("replica.trace.safetensors"))
    data = bytearray(edited.read_bytes())
    data[-1] ^= 1
    edited.write_bytes(data)
    report = verify(manifest, VerifyRequest(trusted, replay="none"))
    third = next(check for check in report.checks if check.number == 3)
    assert edited.relative_to(manifest.parent).as_posix() in str(third.findings)
    assert [name for name in hashed if name.endswith("trace.safetensors")] == [
        edited.relative_to(manifest.parent).as_posix()
    ]
