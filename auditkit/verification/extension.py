"""Check 4 of a study that seeds were added to: it says of the earlier study what that one says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from auditkit.errors import AuditError, SignatureError
from auditkit.evidence.reader import RunEvidence
from auditkit.evidence.verdicts import as_finding
from auditkit.files import artifacts
from auditkit.formats.statements import study_from_statement
from auditkit.records.manifest import EARLIER_ROLE, Extension, StudyManifest
from auditkit.records.report import Finding
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.keys import TrustedKey
from auditkit.signing.signatures import check_signatures


def check_extension(run: RunEvidence, signers: Sequence[TrustedKey]) -> Iterator[Finding]:
    """Findings about the studies that this one extends.

    Args:
        run: The study.
        signers: The trusted keys that signed it; one of them must have signed the earlier ones.
    """
    manifest = run.manifest
    listed = {file.name for file in manifest.files if file.role == EARLIER_ROLE}
    if listed != {extension.manifest for extension in manifest.extends}:
        yield Finding("the earlier manifests that are listed are not those that are extended")
        return
    for number, extension in enumerate(manifest.extends):
        try:
            earlier = _read(run, extension, signers)
        except SignatureError:
            yield Finding("is not signed by who signed this study", extension.manifest)
            continue
        except AuditError as error:
            yield as_finding(error)
            continue
        for problem in _problems(earlier, manifest, number):
            yield Finding(problem, where=extension.manifest)


def look_note(manifest: StudyManifest) -> str | None:
    """What stands with the estimands of a study that seeds were added to."""
    if not manifest.extends:
        return None
    looks = [_count(len(extension.seeds)) for extension in manifest.extends]
    return (
        f"seeds were added after the results of {', then of '.join(looks)} could be seen; no p "
        "value and no interval here accounts for such a look"
    )


def _count(n_seeds: int) -> str:
    return f"{n_seeds} seed{'' if n_seeds == 1 else 's'}"


def _read(run: RunEvidence, extension: Extension, signers: Sequence[TrustedKey]) -> StudyManifest:
    sha256 = run.manifest.file(extension.manifest).sha256
    data = artifacts.safe_read(run.root, extension.manifest, expected_sha256=sha256)
    envelope = open_envelope(data, what=extension.manifest)
    check_signatures(envelope, signers)
    return study_from_statement(envelope.payload, what=extension.manifest)


def _problems(earlier: StudyManifest, manifest: StudyManifest, number: int) -> Iterator[str]:
    extension, plan = manifest.extends[number], earlier.plan
    if earlier.extends != manifest.extends[:number]:
        yield "it extends other studies than are said to come before it"
    if (extension.seeds, extension.finished) != (plan.seeds, earlier.run.finished):
        yield "its seeds or its end are not what the manifest says of it"
    if plan.changed(seeds=manifest.plan.seeds) != manifest.plan:
        yield "its plan differs in more than its seeds"
    if manifest.plan.seeds[: len(plan.seeds)] != plan.seeds:
        yield "its seeds are not the first of this study"
    elif manifest.seeds[: len(earlier.seeds)] != earlier.seeds:
        yield "what it recorded of its seeds is not what stands here"
    if earlier.program.target != manifest.program.target:
        yield "its program is another one"
    if earlier.run.finished > manifest.run.started:
        yield "it ended after seeds were added to it"
