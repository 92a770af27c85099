"""What verifying costs: large files are never in memory as a whole."""

from __future__ import annotations

import mmap
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import pytest
from synthetic_recordings import Loop, State, write_recording
from synthetic_studies import Size, write_study

from auditkit.records.tensor import RawTensor
from auditkit.signing.keys import PrivateKey, TrustedKey, fingerprint, generate_key
from auditkit.verification.procedure import VerifyRequest, verify

MIB = 2**20

#: What a verifier may hold, whatever the size of a snapshot: most of it is for the manifest.
LIMIT = 40 * MIB


@dataclass(frozen=True)
class LargeLoop(Loop):
    """A loop whose model has a large block of zeros."""

    padding: int = 0

    def state(self, row: int, rank: int) -> State:
        state = super().state(row, rank)
        zeros = memoryview(mmap.mmap(-1, self.padding))
        state["params"]["zeros"] = RawTensor("uint8", (self.padding,), zeros)
        return state


def write_large(kind: str, folder: Path, key: PrivateKey, padding: int) -> Path:
    if kind == "study":
        return write_study(folder, key, Size(seeds=1, padding=padding))
    return write_recording(folder, key, LargeLoop(padding=padding)).path


@pytest.mark.parametrize(("kind", "padding"), [("study", 300 * MIB), ("recording", 60 * MIB)])
def test_memory_does_not_grow_with_a_snapshot(tmp_path: Path, kind: str, padding: int) -> None:
    key = generate_key()
    path = write_large(kind, tmp_path / "run", key, padding)
    trusted = [TrustedKey(fingerprint(key), key.public_key(), "test", own=True)]
    tracemalloc.start()
    try:
        report = verify(path, VerifyRequest(trusted, replay="none"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.exit_code == 0, report
    assert peak < LIMIT < padding
