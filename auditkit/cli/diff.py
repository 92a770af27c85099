"""``auditkit diff``: where and how far two runs differ, without verifying either.

``--json`` prints one object::

    {"left": "...", "right": "...",     the two, as they were given
     "same": true,                      exit code 0; false is exit code 1
     "ignored": ["command"],            what differs and was only noted
     "equal": ["..."],                  what was compared and is the same, in words
     "traces": [                        where traces part, one entry a pair
       {"trace": "seed 0, control",     or "rank 0", or "NAME / NAME"
        "kind": "state drift",          or order drift, data drift, RNG drift, length
        "step": 7, "made_by": 6,        the row, and the step that made it so
        "text": "...",                  both, in words
        "component": "params", "others": ["optimizer/exp_avg"],
        "first_steps": {"params": 7},   the first step at which each component differs
        "settings": [                   hyper-parameters that differ, where they are on disk
          {"name": "lr", "place": "param_groups[0]",
           "left": "0.05" | null, "right": "0.04" | null, "step": 7,
           "seen": "both as before step 9"}],
        "sample": null |                the first sample with other bytes, where these were digested
          {"step": 7, "epoch": 0, "index": 12},
        "distance": null |              where both have a snapshot at that step or later
          {"step": 9,                   the step before which both states were taken
           "components": [
             {"component": "params", "elements": 12,
              "absolute": 0.5 | null, "absolute_tensor": "weight" | null,
              "relative": 0.1 | null, "relative_tensor": "weight" | null,
              "not_finite": 0, "unmeasured": ["..."]}]}}],
     "fields": [                        what the manifests say differently
       {"section": "plan", "name": "horizon", "left": "9" | null, "right": "12" | null}],
     "outcomes": [                      probe tables that differ
       {"trace": "seed 0, control", "table": "T", "total_variation": 0.01 | null}],
     "notes": ["..."]}                  what makes no difference, or could not be compared

Sections are ``environment``, ``plan``, ``program``, ``code``, ``seed``, ``world``,
``RNG contract``, ``data``, ``logged``, ``commitments``, ``traces`` and ``run``; ``command`` is
always a note.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import click
from rich.console import Console

from auditkit.cli.console import console, number, print_table, print_words
from auditkit.cli.help import Command
from auditkit.cli.options import TEXT, wide_option
from auditkit.cli.outputs import json_of
from auditkit.diagnose.run_difference import (
    IGNORABLE,
    RunDifference,
    TraceDifference,
    compare_runs,
)
from auditkit.errors import UsageError
from auditkit.evidence.distances import Magnitude
from auditkit.formats import structure

#: Rows of a table that are printed; ``--json`` has them all.
_SHOWN = 40

#: Parts that are the same, and traces that differ alike, that are named.
_EQUAL, _ALIKE = 12, 2

#: Characters of a value that are printed.
_LONGEST = 200


@click.command(cls=Command)
@click.argument("left", metavar="A", type=TEXT)
@click.argument("right", metavar="B", type=TEXT)
@click.option(
    "--ignore",
    "ignored",
    multiple=True,
    type=TEXT,
    metavar="WHAT,...",
    help=f"Only note what differs here: {', '.join(IGNORABLE)}; repeatable.",
)
@wide_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def diff(
    ctx: click.Context, /, left: str, right: str, ignored: tuple[str, ...], as_json: bool
) -> None:
    """Say where A and B first differ, and how far they are apart. Nothing is verified.

    A and B are each a manifest, the folder of a study or recording (also of one that was not
    finished), or one trace of it: FOLDER#seed-0/control, FOLDER#rank-0.

    Two runs whose command lines differ and that did the same are the same; --ignore adds to that.

    Exit codes: 0 the same, 1 different, 2 wrong use, 5 malformed.
    """
    found = compare_runs(left, right, _sections(ignored))
    if as_json:
        click.echo(json_of(structure.to_dict(found)).decode("ascii"))
    else:
        _print(found)
    ctx.exit(0 if found.same else 1)


def _sections(options: tuple[str, ...]) -> tuple[str, ...]:
    """Read ``--ignore environment,code``."""
    names = tuple(part.strip() for option in options for part in option.split(","))
    unknown = [name for name in names if name not in IGNORABLE]
    if unknown:
        raise UsageError(
            f"--ignore {unknown[0]!r} is nothing to ignore", hint=f"one of {', '.join(IGNORABLE)}"
        )
    return names


def _print(found: RunDifference) -> None:
    out = console()
    out.print(f"A: {found.left}")
    out.print(f"B: {found.right}")
    out.print("Not verified; `auditkit verify` does that.")
    # What differs in code, plan or environment first: it is what the rest comes from.
    _print_rows(
        out,
        "fields",
        [(f.section, f.name, _shortened(f.left), _shortened(f.right)) for f in found.fields],
    )
    _print_traces(out, found.traces)
    _print_rows(
        out,
        "magnitudes",
        [row for part in found.traces for row in _distances(part)],
    )
    _print_rows(
        out,
        "outcomes",
        [(o.trace, o.table, number(o.total_variation)) for o in found.outcomes],
    )
    shown = found.equal[:_EQUAL]
    more = len(found.equal) - len(shown)
    out.print(f"The same: {'; '.join(shown) or 'nothing'}{f'; {more} more' if more else ''}")
    for note in found.notes[:_SHOWN]:
        out.print(f"Note: {note}")
    if found.traces:
        print_words(out, (*dict.fromkeys(part.kind for part in found.traces), "trace", "component"))
    but = f" but for: {', '.join(found.ignored)}" if found.ignored else ""
    out.print(f"A and B are the same{but}" if found.same else "A and B differ")


def _print_rows(out: Console, name: str, rows: list[tuple[str, ...]]) -> None:
    if not rows:
        return
    print_table(out, name, rows[:_SHOWN])
    if len(rows) > _SHOWN:
        out.print(f"... and {len(rows) - _SHOWN} more; --json has them all")


def _print_traces(out: Console, traces: Sequence[TraceDifference]) -> None:
    """Print where traces part; those that part alike together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for part in traces:
        alike.setdefault(tuple(_told(part)), []).append(part.trace)
    for lines, names in list(alike.items())[:_SHOWN]:
        more = len(names) - _ALIKE
        where = "; ".join(names[:_ALIKE]) + (f"; and {more} more alike" if more > 0 else "")
        for line in lines:
            out.print(line if line.startswith(" ") else f"{where}: {line}")
    if len(alike) > _SHOWN:
        out.print(f"... and {len(alike) - _SHOWN} more; --json has them all")


def _told(part: TraceDifference) -> list[str]:
    """Where a trace parts: what was set first, then which step made what."""
    lines = [_cut(str(setting)) for setting in part.settings]
    lines.append(part.text)
    if part.sample is not None:
        one = part.sample
        lines.append(
            f"  first sample with other bytes: index {one.index} of epoch {one.epoch}, in step "
            f"{one.step}"
        )
    later = [f"{name} {step}" for name, step in part.first_steps.items() if step > part.step]
    if later:
        lines.append(f"  and from a later step on: {', '.join(later)}")
    return lines


def _distances(part: TraceDifference) -> list[tuple[str, ...]]:
    if part.distance is None:
        return []
    return [
        (
            part.trace,
            str(part.distance.step),
            apart.component,
            number(apart.absolute),
            number(apart.relative),
            apart.absolute_tensor or "-",
            _elements(apart),
        )
        for apart in part.distance.components
    ]


def _elements(apart: Magnitude) -> str:
    parts = [str(apart.elements)] if apart.elements else []
    if apart.not_finite:
        parts.append(f"{apart.not_finite} not finite")
    if apart.unmeasured:
        parts.append(
            f"not measured: {', '.join(entry or 'all of it' for entry in apart.unmeasured)}"
        )
    return "; ".join(parts)


def _shortened(text: str | None) -> str:
    """What one side says, a SHA-256 by its beginning."""
    if text is None:
        return "-"
    return f"{text[:16]}..." if re.fullmatch("[0-9a-f]{64}", text) else _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
