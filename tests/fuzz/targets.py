"""What is fuzzed: every function that reads bytes which somebody else may have written.

A target passes if it returns or raises an :class:`AuditError`. Anything else is a failure: another
exception, more than :data:`MAX_SECONDS`, or more than :data:`MAX_BYTES` that it allocates at once.
A new target is one line in :data:`TARGETS`: its name, the function, and valid inputs for it.
"""

from __future__ import annotations

import functools
import io
import sys
import tarfile
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import record_examples as examples
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from synthetic_studies import Size, write_study

from auditkit.errors import AuditError
from auditkit.files import archives, store
from auditkit.formats import canonical, schema, tensor_file
from auditkit.formats.recipes import digests_raw
from auditkit.formats.run_files import order_from_tensors, outcome_from_tensors, trace_from_tensors
from auditkit.formats.snapshot_file import raw_components
from auditkit.formats.statements import (
    manifest_from_statement,
    record_from_statement,
    study_from_statement,
    to_statement,
)
from auditkit.records.digest import COMMITMENT_RECIPE, EVIDENCE_RECIPE
from auditkit.records.job import Job
from auditkit.records.plan import StudyPlan
from auditkit.records.registration import Registration
from auditkit.records.report import ReplayReport, SignedReport
from auditkit.records.results import BranchesResult, TrunkResult
from auditkit.records.task import RowsTask
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.keys import (
    TrustedKey,
    fingerprint,
    generate_key,
    parse_private_key,
    parse_public_keys,
    private_key_bytes,
    public_line,
)
from auditkit.signing.sigstore_bundle import to_bundle
from auditkit.signing.timestamps import request, token_sha256
from auditkit.verification.procedure import VerifyRequest, verify
from auditkit.verification.report_json import report_from_json

Read = Callable[[bytes], object]

#: Seconds that reading one small input may take.
MAX_SECONDS = 2.0

#: Bytes that reading one small input may allocate.
MAX_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Target:
    """Something that reads bytes.

    Attributes:
        read: The function.
        examples: Makes inputs that it accepts.
        is_json: Whether these are JSON, to be mutated as such, too.
    """

    read: Read
    examples: Callable[[], list[bytes]]
    is_json: bool = False


class TooExpensiveError(Exception):
    """Reading took too long or too much memory."""


def run_once(target: Target, data: bytes, *, is_traced: bool = False) -> bool:
    """Read one input.

    Args:
        target: What reads it.
        data: The input.
        is_traced: Whether memory is measured, which makes it slower.

    Returns:
        Whether it was accepted.

    Raises:
        TooExpensiveError: When it took too much.
        Exception: Whatever the target lets out that is no :class:`AuditError`.
    """
    if is_traced:
        tracemalloc.start()
    start, is_accepted = time.process_time(), False
    try:
        with suppress(AuditError):
            target.read(data)
            is_accepted = True
        seconds = time.process_time() - start
        n_bytes = tracemalloc.get_traced_memory()[1] if is_traced else 0
    finally:
        if is_traced:
            tracemalloc.stop()
    if seconds > MAX_SECONDS or n_bytes > MAX_BYTES:
        raise TooExpensiveError(f"{seconds:.1f} s, {n_bytes:,} bytes for {len(data)} bytes")
    return is_accepted


# What is read


def _tensors(data: bytes) -> object:
    return store.read_tensors(data, what="fuzz")


def _trace(data: bytes) -> object:
    return trace_from_tensors(store.read_tensors(data, what="fuzz")[0], what="fuzz")


def _order(data: bytes) -> object:
    return order_from_tensors(store.read_tensors(data, what="fuzz")[0], what="fuzz")


def _outcome(data: bytes) -> object:
    return outcome_from_tensors(store.read_tensors(data, what="fuzz")[0], what="fuzz")


def _snapshot(data: bytes) -> object:
    return raw_components(*store.read_tensors(data, what="fuzz"))


def _snapshot_in_file(data: bytes) -> object:
    tensors, meta = tensor_file.from_file(
        lambda start, n: data[start : start + n], len(data), what="fuzz"
    )
    sections = raw_components(tensors, meta).values()
    return [digests_raw((COMMITMENT_RECIPE, EVIDENCE_RECIPE), *section) for section in sections]


def _archive(data: bytes) -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "received.zip")
        path.write_bytes(data)
        with archives.unpacked(path) as manifest:
            return manifest.name


def _zipped() -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("study/manifest.json", "study/code/a.py"):
            archive.writestr(name, name * 9)
    return whole.getvalue()


def _tarred() -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz", compresslevel=0) as archive:
        for name in ("study/manifest.json", "study/code/a.py"):
            info = tarfile.TarInfo(name)
            info.pax_headers = {"comment": name}
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    return whole.getvalue()


def _statement_of(kind: type[ReplayReport | SignedReport | Registration]) -> Read:
    return lambda data: record_from_statement(kind, data, what="fuzz")


def _wire(data: bytes) -> object:
    for kind in (Job, RowsTask, TrunkResult, BranchesResult):
        with suppress(AuditError):
            canonical.decode(kind, data, what="fuzz")
    return canonical.decode(StudyPlan, data, what="fuzz")


# What they accept


@functools.cache
def _study() -> Mapping[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        root, key = Path(folder, "study"), generate_key()
        path = write_study(root, key, Size(seeds=1, steps=10, batch=2, probe=(4, 2)))
        files = [file for file in root.rglob("*") if file.is_file()]
        found = {file.relative_to(root).as_posix(): file.read_bytes() for file in files}
        trusted = TrustedKey(fingerprint(key), key.public_key(), "fuzz")
        report = verify(path, VerifyRequest([trusted], replay="none"))
        return {**found, "report.json": canonical.encode(report)}


def _files(suffix: str) -> Callable[[], list[bytes]]:
    return lambda: [data for name, data in sorted(_study().items()) if name.endswith(suffix)]


def _payloads() -> list[bytes]:
    payload = open_envelope(_study()["manifest.json"]).payload
    report = report_from_json(_study()["report.json"], what="fuzz")
    records = (
        examples.MANIFEST,
        examples.RECORDING,
        examples.REPLAY,
        replace(examples.SIGNED_REPORT, report=report),
        examples.REGISTRATION,
    )
    return [payload, *(to_statement(record) for record in records)]


def _records() -> list[bytes]:
    kinds = (StudyPlan, Job, RowsTask, TrunkResult, BranchesResult)
    return [canonical.encode(record) for record in examples.EXAMPLES if isinstance(record, kinds)]


def _keys() -> list[bytes]:
    ed25519 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    p256 = ec.derive_private_key(2**200 + 1, ec.SECP256R1())
    found = []
    for key in (ed25519, p256):
        line = public_line(key, "somebody")
        options = 'namespaces="auditkit",valid-after="20200101",valid-before="21000101Z"'
        spki = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        openssh = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        found += [line.encode(), f"a@b,c {options} {line}\n".encode(), spki, openssh]
        found += [private_key_bytes(key), private_key_bytes(key, "password")]
    return found


TARGETS: Mapping[str, Target] = {
    "json": Target(lambda data: canonical.loads(data, what="fuzz"), _payloads, is_json=True),
    "envelope": Target(open_envelope, _files("manifest.json"), is_json=True),
    "statement": Target(
        lambda data: manifest_from_statement(data, what="fuzz"), _payloads, is_json=True
    ),
    "study": Target(lambda data: study_from_statement(data, what="fuzz"), _payloads, is_json=True),
    "replay": Target(_statement_of(ReplayReport), _payloads, is_json=True),
    "signed-report": Target(_statement_of(SignedReport), _payloads, is_json=True),
    "plan": Target(_statement_of(Registration), _payloads, is_json=True),
    "bundle": Target(to_bundle, _files("manifest.json"), is_json=True),
    "schema": Target(
        lambda data: schema.check(canonical.loads(data, what="fuzz"), "manifest", what="fuzz"),
        _payloads,
        is_json=True,
    ),
    "report": Target(
        lambda data: report_from_json(data, what="fuzz"),
        _files("report.json"),
        is_json=True,
    ),
    "wire": Target(_wire, _records, is_json=True),
    "tensors": Target(_tensors, _files(".safetensors")),
    "trace": Target(_trace, _files(".trace.safetensors")),
    "order": Target(_order, _files("order.safetensors")),
    "outcome": Target(_outcome, _files(".outcome.safetensors")),
    "snapshot": Target(_snapshot, _files("fork.safetensors")),
    "snapshot-in-file": Target(_snapshot_in_file, _files("fork.safetensors")),
    "zip": Target(_archive, lambda: [_zipped()]),
    "tar": Target(_archive, lambda: [_tarred()]),
    "timestamp": Target(token_sha256, lambda: [request(b"what is stamped")]),
    "public-keys": Target(lambda data: parse_public_keys(data, source="fuzz"), _keys),
    "private-key": Target(lambda data: parse_private_key(data, source="fuzz"), _keys),
}
