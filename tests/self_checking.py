"""A real run, and what can have been done to its files, for tests of a page that checks itself."""

from __future__ import annotations

import shutil
from pathlib import Path

from report_reading import named, parsed

from auditkit.formats.statements import manifest_from_statement
from auditkit.paper.self_check import SignedStatement, signed_statement
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.keys import parse_public_keys

GOLDEN = Path(__file__).parent / "golden" / "0.1"


def signed_of(run: Path) -> SignedStatement:
    """What a page of the run holds."""
    envelope = open_envelope((run / "manifest.json").read_bytes())
    keys = parse_public_keys((run / "signer.pub").read_bytes(), source="signer.pub")
    signed = signed_statement(envelope, keys, keys[0].fingerprint)
    assert signed is not None
    return signed


def held_by(page: str) -> dict[str, str]:
    """The data of a page's script."""
    (part,) = (n for n in named(parsed(page), "div") if n.get("id") == "self-check-on")
    names = ("key", "kind", "recorded", "signature", "statement", "type")
    return {name: part.get(f"data-{name}") for name in names}


def largest_file(run: Path) -> str:
    """Name of the largest file that a run lists."""
    payload = open_envelope((run / "manifest.json").read_bytes()).payload
    return max(manifest_from_statement(payload, what="run").files, key=lambda f: f.size).name


def copies(folder: Path, kind: str = "study") -> dict[str, Path]:
    """Copies of a run, untouched and otherwise, by what was done to their files."""
    made = {}
    for case in ("honest", "flipped", "shorter", "missing", "more", "nothing", "other"):
        made[case] = folder / case / "run"
        shutil.copytree(GOLDEN / kind, made[case])
    name = largest_file(GOLDEN / kind)
    file = made["flipped"] / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    (made["shorter"] / name).write_bytes(data[:-1])
    (made["missing"] / name).unlink()
    (made["more"] / "more.bin").write_bytes(b"more")
    (made["more"] / "CHECKLIST.md").write_bytes(b"may lie there")
    shutil.rmtree(made["nothing"])
    made["nothing"].mkdir()
    (made["nothing"] / "run.zip").write_bytes(b"PK")
    recording = "study" if kind == "recording" else "recording"
    shutil.copy(GOLDEN / recording / "manifest.json", made["other"] / "manifest.json")
    return made
