"""What a manifest says beside its traces, as texts that can be set side by side."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from auditkit.formats import canonical
from auditkit.formats.group_values import hyper_parameters
from auditkit.formats.statements import Manifest
from auditkit.formats.structure import to_dict
from auditkit.records.plan_values import spelled_seeds
from auditkit.records.recording import RecordingManifest

Texts = Mapping[str, str]


def manifest_texts(manifest: Manifest) -> dict[str, Texts]:
    """What makes a run this one: texts by name, by section."""
    environment, program = manifest.environment, manifest.program
    found: dict[str, Texts] = {
        "environment": {
            "python": environment.python,
            **{
                f"{section}: {name}": text
                for section in ("packages", "hardware", "libraries", "variables", "determinism")
                for name, text in getattr(environment, section).items()
            },
        },
        "code": {file.name: file.sha256 for file in program.code},
        "program": {
            "target": program.target,
            **{f"argument {name}": text for name, text in program.arguments.items()},
            **{k: v for k, v in program.description.items() if k != "hyper-parameters"},
            **hyper_parameters(program.description),
        },
    }
    if isinstance(manifest, RecordingManifest):
        world = {"size": manifest.world.size, "backend": manifest.world.backend}
        found["command"] = {"command": shlex.join(manifest.command) or "none"}
        found["seed"] = {"seed": "not given" if manifest.seed is None else str(manifest.seed)}
        found["world"] = {**_texts(world), **manifest.world.settings}
        found["whole state"] = {
            f"{name} at the {time}": sha256
            for time, step in (("start", 0), ("end", manifest.ranks[0].steps))
            for state in manifest.sharded
            for name, sha256 in state.digests.items()
            if state.step == step
        }
    else:
        seeds = spelled_seeds(manifest.plan.seeds)
        found["plan"] = {**_texts(to_dict(manifest.plan)), "seeds": seeds}
    return found


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    """Every value as a text, other than strings as JSON."""
    return {
        name: value if isinstance(value, str) else canonical.dumps(value).decode("ascii")
        for name, value in values.items()
    }


#: Names of what :func:`note_texts` gives.
NOTE_NAMES = ("started", "finished", "producer", "git commit")


def note_texts(manifest: Manifest) -> tuple[str, ...]:
    """What makes no difference though two runs have it differently; see :data:`NOTE_NAMES`."""
    program = manifest.program
    commit = program.git_commit or "none"
    return (
        manifest.run.started,
        manifest.run.finished,
        f"{manifest.producer.name} {manifest.producer.version}",
        f"{commit} with changes" if program.git_dirty else commit,
    )
