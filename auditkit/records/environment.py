"""What a run ran on: software, hardware, and the settings that change bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

#: Variables that must be set before a process that runs branches starts: ``PYTHONHASHSEED``
#: fixes the order of sets of strings, cuBLAS needs a fixed workspace to be deterministic.
CHILD_VARIABLES = {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}

#: Variables that set thread counts of the libraries below torch and numpy.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

#: Variables that change bits, threads or devices. Any other stays out of the manifest, since
#: values often hold paths and names (double-blind).
RECORDED_VARIABLES = (
    *CHILD_VARIABLES,
    *THREAD_VARIABLES,
    "ATEN_CPU_CAPABILITY",
    "CUDA_LAUNCH_BLOCKING",
    "DNNL_DEFAULT_FPMATH_MODE",  # oneDNN reads both of its prefixes
    "DNNL_MAX_CPU_ISA",
    "GLIBC_TUNABLES",  # which instructions libm uses
    "MKL_CBWR",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_DYNAMIC",
    "OMP_SCHEDULE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "PYTHONOPTIMIZE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)

#: Variables that the system, this interpreter and device libraries may need to run at all. Whole
#: names, no prefixes: any name could be given a beginning.
SYSTEM_VARIABLES = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CACHE_HOME", "TZ", "PYTHONHOME"),
    *("LANG", "LANGUAGE", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_MONETARY"),
    *("LC_NUMERIC", "LC_TIME"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "CUDA_CACHE_PATH"),
    *("CUDA_MODULE_LOADING", "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"),
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
    *("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION", "ROCM_PATH"),
)

#: What a replaying process has of the verifier's environment, unless he lets more through.
REPLAY_VARIABLES = frozenset({*RECORDED_VARIABLES, *SYSTEM_VARIABLES})

#: Names (of packages, libraries, settings) that never change the bits of a run.
_HARMLESS = frozenset({"cores", "pip", "setuptools", "wheel"})


def protocol_variables(threads: int) -> dict[str, str]:
    """Variables of a process that is to be deterministic, with so many threads."""
    return {**CHILD_VARIABLES, **dict.fromkeys(THREAD_VARIABLES, str(threads))}


@dataclass(frozen=True)
class Environment:
    """Software and hardware, without any name of a user, a host or a home folder.

    Attributes:
        python: Interpreter version and implementation.
        packages: Version by distribution name, of all imported distributions.
        hardware: Processor, CPU capability that torch dispatches to, core count, accelerators.
        libraries: Math libraries and their versions, as torch reports them.
        variables: Environment variables from an allow-list that change bits or threads.
        determinism: Settings in force while the branches ran.
    """

    python: str
    packages: dict[str, str]
    hardware: dict[str, str]
    libraries: dict[str, str]
    variables: dict[str, str]
    determinism: dict[str, str]

    def contradictions(self, threads: int) -> Iterator[str]:
        """Yield a line for whatever cannot be of a process that a study's plan started.

        Args:
            threads: The plan's threads, which every such process was given; see
                :func:`auditkit.processes.subprocesses.environment`.
        """
        for name, value in protocol_variables(threads).items():
            found = self.variables.get(name, value)
            if found != value:
                yield f"{name} was {found}, the protocol asks for {value}"
        settings = {"torch threads": str(threads), "deterministic algorithms": "True"}
        for name, value in settings.items():
            found = self.determinism.get(name, "not said")
            if found != value:
                yield f"{name} was {found}, the protocol asks for {value}"

    def differences(self, other: Environment) -> Iterator[str]:
        """Yield a line for whatever may change bits and is not the same in ``other``."""
        if self.python != other.python:
            yield f"python: {self.python} there, {other.python} here"
        for section in ("packages", "hardware", "libraries", "variables", "determinism"):
            yield from _differences(section, getattr(self, section), getattr(other, section))


def _differences(section: str, there: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    for name in sorted((set(there) | set(here)) - _HARMLESS):
        if there.get(name) != here.get(name):
            yield (
                f"{section}: {name} is {there.get(name, 'absent')} there, "
                f"{here.get(name, 'absent')} here"
            )
