"""Weights & Biases keeps the manifest of a run as an artifact, online or offline.

::

    from auditkit.integrations.wandb import keep_manifest

    keep_manifest(rec.manifest)  # after wandb.init(), after the Recorder is closed
"""

from __future__ import annotations

import os
from typing import Any

import wandb

from auditkit.errors import UsageError
from auditkit.integrations.kept_manifest import NAME, kept_manifest


def keep_manifest(
    manifest: str | os.PathLike[str] | None, *, run: Any = None, whole: bool = False
) -> Any:
    """Keep a manifest as an artifact of type ``auditkit``, with its digest in the metadata.

    Args:
        manifest: The manifest or its folder.
        run: The W&B run; by default the current one.
        whole: Whether to keep every file that the manifest lists.

    Returns:
        The artifact.

    Raises:
        UsageError: When there is no manifest, or no run.
    """
    kept, run = kept_manifest(manifest, whole=whole), run or wandb.run
    if run is None:
        raise UsageError("there is no W&B run", hint="call wandb.init() first, or give run=")
    artifact = wandb.Artifact(f"{NAME}-{run.id}", type=NAME, metadata=kept.facts)
    for name in kept.names:
        artifact.add_file(str(kept.folder / name), name=name)
    run.log_artifact(artifact)
    return artifact
