"""Jobs of several processes that are recorded: each is run once, in a folder of its own."""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fork_server import TIMEOUT, ForkServer, GroupResult
from frameworks import manifest_of

from auditkit.evidence.reader import RecordingEvidence
from auditkit.records.evidence import Trace
from auditkit.records.report import VerificationReport
from auditkit.signing.trust import machine_trust
from auditkit.verification.procedure import VerifyRequest, verify

SCRIPT = Path(__file__).parent / "programs" / "ddp_loop.py"


@dataclass(frozen=True)
class Job:
    """A job of several processes that was run once.

    Attributes:
        out: The recording.
        result: What its processes ended with.
        ended: How they ended.
    """

    out: Path
    result: Path
    ended: GroupResult

    @functools.cached_property
    def traces(self) -> list[Trace]:
        """What was recorded, by rank."""
        manifest = manifest_of(self.out)
        evidence = RecordingEvidence(self.out, manifest)
        return [evidence.trace(rank.traces[0]) for rank in manifest.ranks]

    def results(self) -> list[str]:
        """Weights and random streams that the processes ended with, by rank."""
        size = len(self.ended.codes)
        return [(self.result / f"{rank}.pt").read_text() for rank in range(size)]


@dataclass
class Jobs:
    """Runs jobs in folders of their own."""

    folder: Path
    forks: ForkServer
    variables: dict[str, str]
    known: dict[tuple[object, ...], Job] = field(default_factory=dict)

    def run(self, name: str, size: int, *options: object) -> Job:
        """Run a job that records into the folder of that name."""
        out, result = self.folder / name, self.folder / f"{name}-result"
        ended = self.forks.run(size, SCRIPT, "--out", out, "--result", result, *options)
        assert ended.seconds < TIMEOUT, "it hangs"
        return Job(out, result, ended)

    def whole(self, size: int, *options: object) -> Job:
        """A job that runs to its end; every one is run once only."""
        key = (size, *options)
        if key not in self.known:
            name = "-".join(map(str, ("whole", *key)))
            self.known[key] = self.run(name, size, *options)
            assert self.known[key].ended.codes == [0] * size, self.known[key].ended.texts
        return self.known[key]

    def check(self, job: Job) -> VerificationReport:
        """Verify a recording."""
        trusted = machine_trust(self.variables)
        return verify(job.out / "manifest.json", VerifyRequest(trusted=trusted, replay="none"))


def _free_port() -> int:
    """A port for processes that meet by themselves."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running_jobs(folder: Path, *modules: str) -> Iterator[Jobs]:
    """Jobs in a folder; every process has imported ``modules`` beforehand."""
    variables = {
        "XDG_CONFIG_HOME": str(folder / "config"),
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    forks = ForkServer(folder, variables, *modules)
    yield Jobs(folder, forks, variables)
    forks.close()


def everywhere(size: int, step: int) -> str:
    """Every process, at one step."""
    return ",".join(f"{rank}:{step}" for rank in range(size))


def is_over(job: Job) -> bool:
    """Whether the recording has what only a clean end leaves."""
    return (job.out / "manifest.json").exists()


def go_on(jobs: Jobs, name: str, size: int, kill: str, *options: object) -> Job:
    """Run a job that is killed, and one that goes on from what it left."""
    killed = jobs.run(name, size, "--kill", kill, *options)
    assert -9 in killed.ended.codes
    assert not is_over(killed)
    job = jobs.run(name, size, "--resume", *options)
    assert job.ended.codes == [0] * size, job.ended.texts
    return job


def check_equal(jobs: Jobs, job: Job, whole: Job, resumed_at: tuple[int, ...]) -> None:
    """A job that went on is the one that was never killed, bit for bit and row by row."""
    assert job.results() == whole.results()
    assert job.traces == whole.traces
    pairs = zip(manifest_of(job.out).ranks, manifest_of(whole.out).ranks, strict=True)
    for one, other in pairs:
        assert one.resumed_at == resumed_at
        for name in ("order_sha256", "consumed_sha256", "initial", "final", "components"):
            assert getattr(one, name) == getattr(other, name), name
    assert jobs.check(job).exit_code == 0


def content(out: Path) -> dict[Path, bytes]:
    """What processes that are gone have left."""
    found = [path for path in out.rglob("*.partial") if not path.name.startswith("recording.lock")]
    return {path: path.read_bytes() for path in found}
