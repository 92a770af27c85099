"""A run as an RO-Crate by the profile Process Run Crate: its ``ro-crate-metadata.json``.

Needs the package ``rocrate`` (``pip install "auditkit[crate]"``): the command line imports this
module late, and says so where it is missing. What is said of the run is what its manifest says;
what only people can say comes from options, and is marked where it is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from auditkit.formats.quote import printable
from auditkit.formats.statements import Manifest
from auditkit.paper.attribution import Attribution
from auditkit.paper.citations import unreplayed
from auditkit.paper.neurips import REPORTED
from auditkit.records.manifest import CODE_FOLDER, MANIFEST_NAME, StudyManifest
from auditkit.records.report import VerificationReport

#: Names at the crate's top.
METADATA_NAME = "ro-crate-metadata.json"
STATEMENT_NAME = "statement.json"

#: Which profile the crate conforms to, and the specification below it.
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_VERSION = "1.1"

#: Terms that the specification's own context does not have.
_TERMS = {
    "environment": "https://w3id.org/ro/terms/workflow-run#environment",
    "sha256": "https://schema.org/sha256",
}

#: Roles of files that the run began with.
_INPUTS = ("code", "plan", "earlier")

_STATEMENT_TYPE = "application/vnd.in-toto+json"
_TYPES = {
    ".json": "application/json",
    ".py": "text/x-python",
    ".safetensors": "application/vnd.safetensors",
    ".pub": "text/plain",
}

_TO_BE_GIVEN = "TO BE FILLED IN BY A PERSON"


@dataclass(frozen=True)
class CrateFile:
    """A file of the crate that lies in the run's folder.

    Attributes:
        name: Its name below the run's folder.
        size: Bytes; None where the manifest does not list it.
        sha256: Digest; None where the manifest does not list it.
        role: What it is.
    """

    name: str
    size: int | None
    sha256: str | None
    role: str


def metadata(
    manifest: Manifest,
    report: VerificationReport,
    top: str,
    beside: Iterable[str],
    said: Attribution,
) -> bytes:
    """The metadata of a crate.

    Args:
        manifest: The manifest, which verifies.
        report: The verifier's report on it.
        top: The folder in the crate that is the run's.
        beside: Names of files in it that the manifest does not list, itself among them.
        said: What people say.
    """
    crate = ROCrate(version=_VERSION)
    crate.metadata.extra_terms.update(_TERMS)
    _describe(crate, manifest, report, top, said)
    files = _add_files(crate, manifest, top, beside)
    _add_action(crate, manifest, files, said)
    text = json.dumps(crate.metadata.generate(), indent=2, sort_keys=True, ensure_ascii=True)
    return f"{text}\n".encode()


def _describe(
    crate: ROCrate,
    manifest: Manifest,
    report: VerificationReport,
    top: str,
    said: Attribution,
) -> None:
    root = crate.root_dataset
    noun = "Branch-and-Hold study" if isinstance(manifest, StudyManifest) else "Recorded training"
    root["name"] = said.title or f"{noun}: {printable(manifest.program.target)}"
    about = (
        f"{noun}, made with {printable(manifest.producer.name)} "
        f"{printable(manifest.producer.version)}. That version, hardware, commit and times are "
        f"{REPORTED}.{unreplayed(report)} The run's folder is {top}/; its manifest, "
        f"SHA-256 {report.manifest_sha256}, is signed by {report.signed_by or 'no trusted key'} "
        f"and lists every file. {STATEMENT_NAME} is what is signed in it. To check it: auditkit "
        f"verify {top} --fingerprint {report.signed_by or 'SHA256:...'} --replay none"
    )
    root["description"] = f"{said.description} {about}" if said.description else about
    root["datePublished"] = said.published
    root["license"] = _license(crate, said)
    if said.authors:
        people = [
            _add(crate, person.orcid or f"#author-{n}", "Person", name=person.name)
            for n, person in enumerate(said.authors, start=1)
        ]
        root["author"] = _one_or_all(people)
    if said.missing:
        root["creativeWorkStatus"] = f"{_TO_BE_GIVEN}: {', '.join(said.missing)}"
    profile = _add(crate, PROFILE, "CreativeWork", name="Process Run Crate", version="0.5")
    root["conformsTo"] = profile


def _license(crate: ROCrate, said: Attribution) -> ContextEntity:
    if said.license is not None:
        return _add(crate, said.license.url, "CreativeWork", name=said.license.name)
    note = "No licence was given: whoever publishes this must choose one."
    name = f"{_TO_BE_GIVEN}: licence"
    return _add(crate, "#license-to-be-given", "CreativeWork", name=name, description=note)


def _add_files(
    crate: ROCrate, manifest: Manifest, top: str, beside: Iterable[str]
) -> dict[str, Any]:
    """The files by their names in the run's folder, and the statement."""
    listed = [CrateFile(f.name, f.size, f.sha256, f.role) for f in manifest.files]
    others = [CrateFile(name, None, None, _role(name)) for name in beside]
    found = {
        file.name: crate.add_file(dest_path=f"{top}/{file.name}", properties=_file(file))
        for file in sorted((*listed, *others), key=lambda file: file.name)
    }
    signed = found[MANIFEST_NAME]
    crate.add_file(
        dest_path=STATEMENT_NAME,
        properties={
            "name": "The signed statement",
            "description": "The in-toto Statement v1 that the manifest's envelope holds, as it is",
            "encodingFormat": _STATEMENT_TYPE,
            "isBasedOn": {"@id": signed.id},
        },
    )
    run = crate.add_dataset(dest_path=top, properties={"name": "The run's folder"})
    run["hasPart"] = list(found.values())
    return found


def _file(file: CrateFile) -> dict[str, Any]:
    suffix = file.name[file.name.rfind(".") :]
    told: dict[str, Any] = {
        "name": printable(file.name),
        "description": file.role,
        "encodingFormat": _TYPES.get(suffix, "application/octet-stream"),
    }
    if file.size is not None:
        told |= {"contentSize": str(file.size), "sha256": file.sha256}
    if file.role == "code":
        told["@type"] = ["File", "SoftwareSourceCode"]
    return told


def _role(name: str) -> str:
    roles = {MANIFEST_NAME: "the signed manifest (DSSE envelope)"}
    kinds = {"signer": "the signer's public key", "countersign": "signed report of a verification"}
    kind = name.partition(".")[0].partition("-")[0]
    return roles.get(name) or kinds.get(kind, "signed replay")


def _add_action(
    crate: ROCrate, manifest: Manifest, files: Mapping[str, Any], said: Attribution
) -> None:
    inputs = [files[f.name] for f in manifest.files if f.role in _INPUTS]
    values = _values(crate, "argument", manifest.program.arguments)
    action = crate.add_action(
        list(_instruments(crate, manifest, files)),
        identifier="#run",
        object=_one_or_all([*inputs, *values]),
        result=_one_or_all([entity for entity in files.values() if entity not in inputs]),
        properties={
            "name": f"The run of {printable(manifest.program.target)}",
            "description": _description(manifest),
            "startTime": _time(manifest.run.started),
            "endTime": _time(manifest.run.finished),
            "actionStatus": "http://schema.org/CompletedActionStatus",
        },
    )
    environment = _values(crate, "variable", manifest.environment.variables)
    if environment:
        action["environment"] = _one_or_all(environment)
    if said.authors:
        action["agent"] = crate.root_dataset["author"]
    crate.root_dataset["mentions"] = [action, _machine(crate, manifest)]


def _instruments(crate: ROCrate, manifest: Manifest, files: Mapping[str, Any]) -> Iterator[Any]:
    """The program and the software that it was run with, as the run recorded it."""
    program, environment = manifest.program, manifest.environment
    source = program.target.partition(":")[0]
    module = f"{source.replace('.', '/')}.py"
    named = (files.get(f"{CODE_FOLDER}/{name}") for name in (source, module))
    main = next(filter(None, named), None)
    if main is not None:
        main["version"] = printable(program.git_commit or f"sha256:{main['sha256']}")
        yield main
    producer = manifest.producer
    software = {producer.name: producer.version, "Python": environment.python}
    software |= {**environment.libraries, **environment.packages}
    for n, (name, version) in enumerate(software.items(), start=1):
        told = {"name": printable(name), "softwareVersion": printable(version)}
        yield _add(crate, f"#software-{n}", "SoftwareApplication", **told)


def _machine(crate: ROCrate, manifest: Manifest) -> ContextEntity:
    """Hardware and settings: no software, so that they are no instruments by the profile."""
    environment = manifest.environment
    settings = {**environment.hardware, **environment.determinism}
    return _add(
        crate,
        "#machine",
        "IndividualProduct",
        name=f"The machine and its settings, {REPORTED}",
        additionalProperty=_one_or_all(_values(crate, "machine", settings)),
    )


def _description(manifest: Manifest) -> str:
    if isinstance(manifest, StudyManifest):
        plan = manifest.plan
        seeds = ", ".join(map(str, plan.seeds))
        told = (
            f"Fork at step {plan.fork_at}, window {plan.window}, horizon {plan.horizon}; seeds "
            f"{seeds}; branches {', '.join(plan.branch_names)}"
        )
    else:
        told = (
            f"A training loop as auditkit's Recorder saw it, in {len(manifest.ranks)} "
            f"process(es), of {sum(rank.steps for rank in manifest.ranks)} steps in all; command "
            f"{' '.join(manifest.command)}"
        )
    return f"{printable(told)}. Times and machine are self-reported."


def _values(crate: ROCrate, kind: str, items: Mapping[str, str]) -> list[ContextEntity]:
    return [
        _add(crate, f"#{kind}-{n}", "PropertyValue", name=printable(name), value=printable(value))
        for n, (name, value) in enumerate(sorted(items.items()), start=1)
    ]


def _one_or_all(entities: list[Any]) -> Any:
    """The specification asks that a list of one is written as that one."""
    return entities[0] if len(entities) == 1 else entities


def _add(crate: ROCrate, identifier: str, type_: str, **told: Any) -> ContextEntity:
    return crate.add(ContextEntity(crate, identifier, properties={"@type": type_, **told}))


def _time(text: str) -> str:
    """A time as the profile writes it; as it is where it is none."""
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError:
        return printable(text)
