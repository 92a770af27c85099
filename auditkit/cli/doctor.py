"""``auditkit doctor``: is training repeatable here, and if not, what to do.

``--json`` writes one object: :class:`auditkit.diagnose.doctor.Diagnosis` and ``exit_code``.
"""

from __future__ import annotations

import sys

import click

from auditkit.cli.console import console, print_words
from auditkit.cli.options import TAIL, TEXT, WHOLE, CommandWithTail, parse_arguments, split_target
from auditkit.cli.outputs import DIAGNOSIS, destination, json_of
from auditkit.cli.progress import StepProgress
from auditkit.diagnose.doctor import Diagnosis, examine_command, examine_program
from auditkit.diagnose.telling import diagnosis_lines
from auditkit.errors import UsageError
from auditkit.formats import structure
from auditkit.processes.commands import Commands
from auditkit.records.job import ProgramSource
from auditkit.replay.live_comparison import CommandConfig


@click.command(cls=CommandWithTail)
@click.argument("program", required=False, type=TEXT)
@click.option("--steps", default=50, show_default=True, type=WHOLE, help="Steps of every run.")
@click.option("--repeat", default=2, show_default=True, type=WHOLE, help="Runs that are compared.")
@click.option(
    "--arg", "arguments", multiple=True, type=TEXT, help="An argument of the factory; repeatable."
)
@click.option("--verbose", is_flag=True, help="Pass on what the command writes, to stderr.")
@click.option(
    "--json", "json_out", type=TEXT, help="Write what was found as JSON to a file, or - for stdout."
)
@click.pass_context
def doctor(
    ctx: click.Context,
    /,
    program: str | None,
    steps: int,
    repeat: int,
    arguments: tuple[str, ...],
    verbose: bool,
    json_out: str | None,
) -> None:
    """Run the first steps of PROGRAM, or of the command after `--`, twice, and compare.

    PROGRAM is FILE.py, FILE.py:FACTORY or package.module:FACTORY. A command's script trains by
    itself, with an auditkit.Recorder in it.

    A command whose runs are equal is also resumed from a checkpoint in their midst, in a fresh
    process, and compared with them.

    Exit codes: 0 no difference was seen, 1 not repeatable or a resume is not exact, 2 wrong use,
    6 it could not be run.
    """
    command: tuple[str, ...] = ctx.meta[TAIL]
    if bool(program) == bool(command):
        raise UsageError("give either a PROGRAM, or a command after --")
    json_to = destination("--json", json_out, DIAGNOSIS, "diagnosis")
    if steps < 3 or repeat < 2:
        raise UsageError("--steps is at least 3, --repeat at least 2")
    if arguments and command:
        raise UsageError("a command after -- takes no --arg")

    with StepProgress(None, "doctor", f"run 1 of {repeat} ...") as progress:

        def report(done: int) -> None:
            then = "comparing them" if done == repeat else f"run {done + 1}"
            progress.expect(None, "doctor", f"{done} of {repeat} runs done, {then} ...")

        if program:
            target, folder = split_target(program)
            source = ProgramSource(target, folder, parse_arguments(arguments))
            found = examine_program(source, steps, repeat, report)
        else:
            with Commands() as commands:
                output = sys.stderr.buffer if verbose else None
                config = CommandConfig(commands, command, {}, output)
                found = examine_command(config, steps, repeat, report)
    resumes = found.resume is None or found.resume.parting is None
    code = 0 if found.repeatable and resumes else 1
    data = json_of({"exit_code": code, **structure.to_dict(found)})
    if not json_to.is_stdout:
        _print(found)
    json_to.write(data)
    ctx.exit(code)


def _print(found: Diagnosis) -> None:
    out = console()
    for line in diagnosis_lines(found):
        out.print(line)
    resumed = None if found.resume is None else found.resume.parting
    parting = found.parting or resumed
    if parting is not None:
        print_words(out, (parting.kind, "component", "step"))
