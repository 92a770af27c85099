"""MLflow and Weights & Biases keep a manifest, offline; each is tried where it is installed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from synthetic_recordings import Recording, write_recording

from auditkit.errors import UsageError
from auditkit.integrations.kept_manifest import kept_manifest
from auditkit.signing.keys import PrivateKey, fingerprint


@pytest.fixture
def recording(tmp_path: Path, key: PrivateKey) -> Recording:
    return write_recording(tmp_path / "run", key)


def test_the_manifest_is_kept_and_known_by_its_digest(recording: Recording) -> None:
    data = recording.path.read_bytes()
    kept = kept_manifest(recording.folder)
    assert kept == kept_manifest(recording.path)
    assert kept.names == ("manifest.json",)
    assert kept.facts == {
        "manifest_sha256": hashlib.sha256(data).hexdigest(),
        "signed_by": fingerprint(recording.key),
    }
    whole = kept_manifest(recording.path, whole=True)
    assert set(whole.names) == {"manifest.json", *(f.name for f in recording.recorded.files)}
    (recording.folder / "signer.pub").write_text("ssh-ed25519 AAAA")
    assert kept_manifest(recording.path).names == ("manifest.json", "signer.pub")


def test_a_recording_that_did_not_end_well_has_nothing_to_keep() -> None:
    with pytest.raises(UsageError, match="no manifest to keep"):
        kept_manifest(None)


@pytest.mark.filterwarnings("default")  # theirs are none of ours
def test_mlflow_keeps_it(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow: Any = pytest.importorskip("mlflow", reason="mlflow is not installed")
    from auditkit.integrations.mlflow import keep_manifest

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    mlflow.set_experiment("training")
    with mlflow.start_run() as run:
        keep_manifest(recording.path, whole=True)
    found = mlflow.get_run(run.info.run_id)
    assert (
        found.data.tags["auditkit.manifest_sha256"]
        == kept_manifest(recording.path).facts["manifest_sha256"]
    )
    folder = Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/auditkit"))
    assert (folder / "manifest.json").read_bytes() == recording.path.read_bytes()
    assert (folder / "code" / "train.py").is_file()


@pytest.mark.filterwarnings("default")
def test_wandb_keeps_it_offline(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb: Any = pytest.importorskip("wandb", reason="wandb is not installed")
    from auditkit.integrations.wandb import keep_manifest

    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    with pytest.raises(UsageError, match="no W&B run"):
        keep_manifest(recording.path)
    with wandb.init(mode="offline", project="training", dir=str(tmp_path)) as run:
        artifact = keep_manifest(recording.path)
        assert artifact.name.startswith(f"auditkit-{run.id}")
    assert artifact.type == "auditkit"
    assert artifact.metadata == kept_manifest(recording.path).facts
    assert "manifest.json" in artifact.manifest.entries
    assert list(tmp_path.rglob("*.wandb"))
