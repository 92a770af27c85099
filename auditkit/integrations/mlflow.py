"""MLflow keeps the manifest of a run as an artifact of its own run.

::

    from auditkit.integrations.mlflow import keep_manifest

    keep_manifest(rec.manifest)  # within mlflow.start_run(), after the Recorder is closed
"""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import mlflow

from auditkit.integrations.kept_manifest import NAME, kept_manifest


def keep_manifest(
    manifest: str | os.PathLike[str] | None, *, run_id: str | None = None, whole: bool = False
) -> None:
    """Keep a manifest under ``auditkit`` of an MLflow run, and its digest as a tag.

    Args:
        manifest: The manifest or its folder.
        run_id: The MLflow run; by default the active one.
        whole: Whether to keep every file that the manifest lists.

    Raises:
        UsageError: When there is no manifest.
    """
    kept = kept_manifest(manifest, whole=whole)
    for name in kept.names:
        place = str(PurePosixPath(NAME, name).parent)
        mlflow.log_artifact(str(kept.folder / name), artifact_path=place, run_id=run_id)
    client, run = mlflow.MlflowClient(), run_id or mlflow.active_run().info.run_id
    for name, text in kept.facts.items():
        client.set_tag(run, f"{NAME}.{name}", text)
