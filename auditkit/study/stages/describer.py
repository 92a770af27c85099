"""Describe a live program: its objects, its data, its random streams."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from auditkit.formats.ordering import Batch
from auditkit.formats.quote import class_of
from auditkit.formats.seeds import RECIPE
from auditkit.observe.loader.iterables import BatchStream, NoLoader
from auditkit.observe.rng.per_sample import PerSampleDataset, SampleStreams
from auditkit.observe.rng.streams import uncovered_streams
from auditkit.observe.state.components import TrainingObjects
from auditkit.observe.values.codec import flatten
from auditkit.observe.values.digests import commitments, digest_leaves
from auditkit.observe.values.flatten import batch_leaves
from auditkit.program.data_source import data_source
from auditkit.program.session import Session
from auditkit.records.digest import COMMITMENT_RECIPE
from auditkit.records.manifest import DataRecord
from auditkit.records.registration import DataIdentity
from auditkit.records.results import BuiltProgram
from auditkit.records.rng import DERIVED_STREAMS, RngContract, StreamContract


def describe(session: Session) -> dict[str, str]:
    """Model, optimizer and so on, for people."""
    found = describe_objects(session.objects)
    return {**found, "accumulated batches": str(session.program.accumulate)}


def describe_objects(objects: TrainingObjects) -> dict[str, str]:
    """The same of objects that are trained by somebody else's loop."""
    parameters = list(objects.model.parameters())
    found = {
        "model": type(objects.model).__name__,
        "parameters": str(sum(p.numel() for p in parameters)),
        "trainable parameters": str(sum(p.numel() for p in parameters if p.requires_grad)),
        "optimizer": type(objects.optimizer).__name__,
        "hyper-parameters": "; ".join(
            _hyper_parameters(group) for group in objects.optimizer.param_groups
        ),
    }
    for name in ("scheduler", "scaler"):
        holder = getattr(objects, name)
        if holder is not None:
            found[name] = type(holder).__name__
    if objects.averaged:
        found["averaged"] = ", ".join(sorted(objects.averaged))
    if objects.extras:
        found["extras"] = ", ".join(sorted(objects.extras))
    if objects.groups:
        groups = objects.groups.items()
        found["groups"] = "; ".join(f"{name}: {', '.join(each)}" for name, each in groups)
    return found


def data_record(session: Session, consumed_sha256: str, order: Sequence[Batch]) -> DataRecord:
    """Identity of the data that a seed consumed.

    Args:
        session: The live program.
        consumed_sha256: Over every batch of trunk and control.
        order: int64 ``(B, 2)`` of every step.
    """
    return DataRecord(
        consumed_sha256=consumed_sha256,
        probe_sha256=_probe_sha256(session),
        loader=describe_loader(session.program.data_loader),
        declared=session.program.data_version,
        samples=None if session.driver.iterable else sum(len(batch) for batch in order),
        data_from=data_source(session.program),
    )


def data_identity(
    session: Session, report: Callable[[int, int], None], *, whole: bool, sample_seed: int
) -> DataIdentity:
    """Identity of a program's data before it trains.

    Args:
        session: The live program.
        report: Called with how many samples were read, and of how many.
        whole: Whether every sample of the dataset is read.
        sample_seed: Whose per-sample streams it is read with.
    """
    read = _dataset_sha256(session, sample_seed, report) if whole else (None, None)
    sha256, samples = read
    return DataIdentity(
        seed=session.seed,
        dataset_sha256=sha256,
        samples=samples,
        probe_sha256=_probe_sha256(session),
        declared=session.program.data_version,
        loader=describe_loader(session.program.data_loader),
    )


def _dataset_sha256(
    session: Session, sample_seed: int, report: Callable[[int, int], None]
) -> tuple[str | None, int | None]:
    """SHA-256 over the SHA-256 of every sample, collated by itself, in index order.

    Each is drawn from its own stream of epoch 0, so that neither order nor workers matter.
    """
    loader = session.program.data_loader
    if session.driver.iterable or not hasattr(loader.dataset, "__len__"):
        return None, None
    generators = session.program.sample_generators
    dataset = PerSampleDataset(loader.dataset, SampleStreams(sample_seed, generators))
    digest, n_samples = hashlib.sha256(), len(dataset)
    for index in range(n_samples):
        sample = dataset[0, index]
        collated = loader.collate_fn([sample] if loader.batch_sampler is not None else sample)
        digest.update(digest_leaves(COMMITMENT_RECIPE, batch_leaves(collated)))
        report(index + 1, n_samples)
    return digest.hexdigest(), n_samples


def probe_digests(session: Session) -> dict[str, str]:
    """``sha256/tensor-v1`` of the probe's ``inputs`` and ``labels``."""
    probe = session.program.probe
    assert probe is not None  # noqa: S101 # checked when the program was built
    found: dict[str, Any] = {"inputs": _leaves(probe.inputs)}
    if probe.labels is not None:
        found["labels"] = {"labels": probe.labels}
    return commitments(found)


def evaluation_digests(session: Session, recalibration: Sequence[Any]) -> dict[str, str]:
    """The same, and of the batches that BatchNorm is recalibrated on where there are any."""
    found = probe_digests(session)
    if recalibration:
        leaves = flatten(list(recalibration), where="recalibration", data=True)
        found |= commitments({"recalibration": leaves})
    return found


def built_program(session: Session) -> BuiltProgram:
    """What the factory made; before anything is restored."""
    initial = commitments(session.state())
    return BuiltProgram(initial, probe_digests(session), describe(session))


def _probe_sha256(session: Session) -> str:
    digests = probe_digests(session)
    return hashlib.sha256(" ".join(digests[name] for name in sorted(digests)).encode()).hexdigest()


def rng_contract(session: Session, digests: Mapping[str, Mapping[str, str]]) -> RngContract:
    """The RNG contract of a seed.

    Args:
        session: The live program.
        digests: The control's commitments by time and component.
    """
    at_fork, at_end = digests["t0"], digests["T"]
    streams = [
        StreamContract(
            stream=name,
            seed=str(session.stream_seeds[name]) if name in session.stream_seeds else None,
            start=session.stream_starts.get(name),
            fork=at_fork[name],
            end=at_end.get(name),
        )
        for name in sorted(at_fork)
        if name.startswith("rng/")
    ]
    if session.driver.per_sample:
        streams.extend(
            StreamContract(stream=name, seed=None, start=None, fork=None, end=None)
            for name in DERIVED_STREAMS
        )
    return RngContract(RECIPE, tuple(streams), uncovered_streams())


def _leaves(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return {"inputs": inputs}
    return flatten(inputs, where="probe", data=True)


def _hyper_parameters(group: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in group.items() if key != "params" and value is not None}
    return ", ".join(f"{key}={value}" for key, value in shown.items())


def describe_loader(loader: Any) -> dict[str, str]:
    """What a DataLoader is, for people."""
    if isinstance(loader.dataset, BatchStream):  # another library's, whose parts have no names
        if isinstance(loader.dataset.loader, NoLoader):
            return {"loader": "none"}
        return {"loader": class_of(loader.dataset.loader)}
    return {
        "loader": type(loader).__name__,
        "dataset": type(loader.dataset).__name__,
        "sampler": type(loader.sampler).__name__,
        "batch sampler": type(loader.batch_sampler).__name__,
        "batch size": str(loader.batch_size),
        "drop last": str(loader.drop_last),
        "workers": str(loader.num_workers),
        "persistent workers": str(loader.persistent_workers),
    }
