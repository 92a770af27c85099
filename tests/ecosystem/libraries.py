"""Which libraries are examined, at which versions, and what is expected of each.

The manual's page *libraries* has the same table, for people; ``tests/manual/test_libraries.py``
compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pins:
    """What an environment holds beside auditkit and torch.

    Attributes:
        packages: Installed with what they need.
        without_needs: Installed by themselves.
    """

    packages: tuple[str, ...] = ()
    without_needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Library:
    """What is expected of a program of ``programs/``.

    Attributes:
        environment: Key of :data:`PINS`.
        title: What the manual calls it, with its version.
        loop: What becomes of the recorded loop with 0 and with 2 workers: ``works``, or the name
            of the error that refuses it, or of the warning that it cannot be resumed. (``works``
            with a line that must be added stands for ``works`` here: the program has that line.)
        study: The same of the study.
    """

    environment: str
    title: str
    loop: tuple[str, str] = ("works", "works")
    study: tuple[str, str] = ("works", "works")


PINS: dict[str, Pins] = {
    "webdataset": Pins(("webdataset==1.0.2",)),
    "datasets": Pins(("datasets==5.2.0",)),
    "torchdata": Pins(("torchdata==0.11.0",)),
    "litdata": Pins(("litdata==0.2.76",)),
    # its own pins ask for an older numpy, xxhash and transformers, and for six clouds' clients
    "streaming": Pins(
        (
            "transformers==5.23.0",
            "Brotli==1.2.1",
            "python-snappy==0.7.3",
            "zstd==1.5.7.2",
            "pillow==13.0.0",
            "catalogue==2.0.10",
            "torchvision==0.28.0",
        ),
        ("mosaicml-streaming==0.13.0",),
    ),
    "grain": Pins(("grain==0.2.18",)),
    "albumentations": Pins(("albumentations==2.0.8",)),
    "albumentationsx": Pins(("albumentationsx[headless]==2.5.1",)),
    "monai": Pins((), ("monai==1.6.1",)),
    "torchio": Pins(("torchio==1.2.1",)),
    "kornia": Pins(("kornia==0.9.0",)),
    "audiomentations": Pins(("audiomentations==0.43.1",)),
    "gymnasium": Pins(("gymnasium==1.4.0",)),
    "opacus": Pins(("opacus==1.6.0",)),
}

#: Copies in workers begin every epoch anew, and so does an epoch that is resumed.
_RECORDING = ("RecordingStopped", "works")
_DRIFT = ("AugmentationDrift", "UncapturedState")

#: By the name of the program file.
LIBRARIES: dict[str, Library] = {
    "webdataset_deterministic": Library("webdataset", "webdataset 1.0.2, `detshuffle`"),
    "webdataset_clock": Library(
        "webdataset",
        "webdataset 1.0.2, `shuffle`",
        ("RestoreMismatch", "RestoreMismatch"),
        ("OrderDrift", "OrderDrift"),
    ),
    "webdataset_webloader": Library("webdataset", "webdataset 1.0.2, `WebLoader`"),
    "datasets_map": Library("datasets", "datasets 5.2.0, `Dataset`"),
    "datasets_iterable": Library("datasets", "datasets 5.2.0, `IterableDataset`"),
    "torchdata_stateful": Library("torchdata", "torchdata 0.11.0, `StatefulDataLoader`"),
    "torchdata_nodes": Library("torchdata", "torchdata 0.11.0, nodes"),
    "litdata_streaming": Library("litdata", "litdata 0.2.76"),
    "streaming_mds": Library("streaming", "mosaicml-streaming 0.13.0"),
    "grain_loader": Library("grain", "grain 0.2.18, `DataLoader`"),
    "grain_dataset": Library("grain", "grain 0.2.18, `IterDataset`"),
    "albumentations_bare": Library("albumentations", "albumentations 2.0.8", _RECORDING, _DRIFT),
    "albumentations_worker": Library(
        "albumentations",
        "albumentations 2.0.8, made late",
        _RECORDING,
        ("AugmentationDrift", "AugmentationDrift"),
    ),
    "albumentations_registered": Library("albumentations", "albumentations 2.0.8, registered"),
    "albumentations_inherited": Library(
        "albumentations", "albumentations 2.0.8, registered, inherited"
    ),
    "albumentationsx_bare": Library("albumentationsx", "albumentationsx 2.5.1", _RECORDING, _DRIFT),
    "albumentationsx_registered": Library("albumentationsx", "albumentationsx 2.5.1, registered"),
    "monai_bare": Library("monai", "monai 1.6.1", _RECORDING, _DRIFT),
    "monai_registered": Library("monai", "monai 1.6.1, registered"),
    "torchio_transforms": Library("torchio", "torchio 1.2.1"),
    "kornia_transforms": Library("kornia", "kornia 0.9.0"),
    "kornia_inherited": Library("kornia", "kornia 0.9.0, inherited"),
    "audiomentations_waves": Library("audiomentations", "audiomentations 0.43.1"),
    "gymnasium_collected": Library("gymnasium", "gymnasium 1.4.0, steps collected before"),
    "gymnasium_steps": Library(
        "gymnasium",
        "gymnasium 1.4.0, steps as a stream",
        _RECORDING,
        ("UncapturedState", "UncapturedState"),
    ),
    "gymnasium_registered": Library("gymnasium", "gymnasium 1.4.0, steps as a stream, registered"),
    "opacus_private": Library("opacus", "opacus 1.6.0, `PrivacyEngine`"),
}
