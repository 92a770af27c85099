"""Describe the software and hardware of this process, and nobody's name."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import sys
from functools import cache
from pathlib import Path

import torch

from auditkit.errors import StoreError
from auditkit.files import store
from auditkit.observe.machine.determinism import settings
from auditkit.records.environment import RECORDED_VARIABLES, Environment

#: Distributions that change numbers; the versions of all others would only make two
#: environments look different.
_PACKAGES = ("auditkit", "torch", "numpy", "scipy", "safetensors", "xxhash")


_HARMLESS = re.compile(r"[\w.,:;=+ -]{0,64}", re.ASCII)


def environment() -> Environment:
    """Describe this process as it runs now."""
    return Environment(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages=_packages(),
        hardware=_hardware(),
        libraries=_libraries(),
        variables=_variables(),
        determinism=settings(),
    )


def look_up_packages() -> None:
    """Look up what every process asks, as far as that touches no device."""
    _packages()


def _variables() -> dict[str, str]:
    # None of them has a reason to hold a path, but nobody is kept from setting them to one.
    found = {name: os.environ[name] for name in RECORDED_VARIABLES if name in os.environ}
    return {name: v if _HARMLESS.fullmatch(v) else "(unusual)" for name, v in found.items()}


def _packages() -> dict[str, str]:
    names = set(_PACKAGES)
    for module, distributions in _distributions().items():
        if module in sys.modules:  # as it is where one below it was imported
            names.update(distributions)
    versions = {name: _version(name) for name in sorted(names)}
    return {name: version for name, version in versions.items() if version is not None}


@cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


def _hardware() -> dict[str, str]:
    found = {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
    }
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    return found


def _libraries() -> dict[str, str]:
    shown = torch.__config__.show()
    # One line each: "Intel(R) oneAPI Math Kernel Library Version ...", "Intel(R) MKL-DNN v...".
    found = {
        name: line.strip(" -")
        for line in shown.splitlines()
        for name, mark in (("mkl", "Math Kernel"), ("onednn", "MKL-DNN"), ("openmp", "OpenMP"))
        if mark in line
    }
    # Its exp, log and pow are rounded otherwise from version to version.
    found["libc"] = " ".join(filter(None, platform.libc_ver())) or platform.release()
    found["torch build"] = hashlib.sha256(shown.encode()).hexdigest()[:16]
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
        found["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    return found


def _processor() -> str:
    # platform.processor() is empty on most Linux systems.
    try:
        text = store.read_bytes(Path("/proc/cpuinfo"), max_bytes=1 << 22, what="cpuinfo").decode()
    except (StoreError, UnicodeDecodeError):
        return platform.processor() or platform.machine()
    names = [line for line in text.splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()
