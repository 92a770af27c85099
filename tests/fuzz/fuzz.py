"""Fuzz the readers for as long as you like, guided by coverage.

Run it from anywhere, with ``pip install ".[fuzz]"`` (atheris; Python 3.11 and 3.12 on Linux)::

    python tests/fuzz/fuzz.py --seconds 600 [--target NAME]

Each target of ``targets.py`` gets an equal share of the time, in a process of its own. What makes
a target fail is written to ``TARGET-crash-*`` in the folder of ``--out``, and the exit code is 1;
``--input FILE --target NAME`` reads such a file once more, without atheris.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))

MAX_LENGTH = 65_536


def fuzz_target(name: str, seconds: int, folder: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["auditkit"]):
        from mutations import mutate
        from targets import TARGETS, run_once

    target = TARGETS[name]
    seeds = folder / f"seeds-{name}"
    seeds.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.examples()):
        (seeds / f"{number:04d}").write_bytes(data)

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        rng = Random(seed)
        try:
            changed = mutate(data, rng, is_json=target.is_json)
        except (ValueError, KeyError, TypeError, RecursionError):  # no JSON any more
            changed = mutate(data, rng, is_json=False)
        return atheris.Mutate(changed, max_size) if rng.random() < 0.3 else changed[:max_size]

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_LENGTH}",
        "-len_control=0",  # the mutations keep the length of a whole input
        "-timeout=10",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={folder}/{name}-",
        "-print_final_stats=1",
    ]
    atheris.Setup(
        [sys.argv[0], *options, str(seeds)],
        lambda data: run_once(target, bytes(data)),
        custom_mutator=change,
    )
    atheris.Fuzz()


def main() -> int:
    """Parse and fuzz; 1 where a target failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--target", help="one of those in targets.py; by default all")
    parser.add_argument("--out", type=Path, help="where inputs that fail are kept")
    parser.add_argument("--input", type=Path, help="read this file once, without atheris")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:  # before anything is imported that is to be instrumented
        fuzz_target(options.target, options.seconds, options.out)
        return 0
    from targets import TARGETS, run_once

    if options.target not in (None, *TARGETS):
        parser.error(f"--target is one of {', '.join(TARGETS)}")
    if options.input is not None:
        if options.target is None:
            parser.error("--input needs --target")
        accepted = run_once(TARGETS[options.target], options.input.read_bytes(), is_traced=True)
        print("accepted" if accepted else "refused")
        return 0
    if importlib.util.find_spec("atheris") is None:
        print(
            'atheris is not installed: pip install ".[fuzz]" (Python below 3.13)', file=sys.stderr
        )
        return 2
    out = options.out or Path(tempfile.mkdtemp(prefix="auditkit-fuzz-"))
    names = [options.target] if options.target else list(TARGETS)
    share, failed = max(options.seconds // len(names), 1), []
    for name in names:
        command = [sys.executable, __file__, "--here", "--target", name, "--out", str(out)]
        done = subprocess.run([*command, "--seconds", str(share)], check=False)
        if done.returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}; see {out}" if failed else "no target failed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
