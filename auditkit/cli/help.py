"""Help pages: options in groups, examples, and summaries that are never cut off.

Which group an option stands in is said here, by its name; one that no group names stands at the
end, so that none is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import click

from auditkit.errors import UsageError

#: Commands by what they are for, in the order in which they are listed, with the first sentence of
#: their help: written here as well, so that the list loads no command.
SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Studies": {
        "run": "Run the study of PROGRAM: FILE.py, FILE.py:FACTORY or package.module:FACTORY.",
        "verify": "Verify MANIFEST: signature, files, pairing, replay; then compute the estimands.",
        "reproduce": "Run the plan of MANIFEST on this machine, and compare the two sets of "
        "estimands.",
        "perturbations": "List every perturbation: what it does, its parameters, what it changes "
        "and needs.",
        "power": "Say how many seeds a study needs, by the study PILOT or by a standard deviation.",
        "plan": "Sign the plan of PROGRAM's study: seeds, program and data digests.",
        "report": "Verify MANIFEST, then write it as one page with pictures, tables and "
        "explanations.",
        "checklist": "Verify MANIFEST, then print the checklist that it can fill.",
    },
    "A loop of your own": {
        "doctor": "Run the first steps of PROGRAM, or of the command after `--`, twice, and "
        "compare.",
        "replay": "Run the command after `--` again and compare every step with the recording of "
        "MANIFEST.",
        "list": "List the studies and recordings in DIR and below it.",
        "close": "Make a signed manifest of the recording in DIR whose process is dead.",
    },
    "What is there": {
        "show": "Print what MANIFEST says, or a plan, replay or countersignature.",
        "diff": "Say where A and B first differ, and how far they are apart.",
        "explain": "Explain TOPIC: a page of the manual, a check, exit code, perturbation, error "
        "or word.",
    },
    "Keys and files": {
        "keygen": "Make an Ed25519 key.",
        "sign": "Add your signature to MANIFEST.",
        "timestamp": "Time stamps of signatures by a third party (RFC 3161).",
        "export": "Write MANIFEST as a Sigstore bundle, or its run as an RO-Crate.",
        "pack": "Pack the study or recording in DIR into a .zip that `auditkit verify` takes as it "
        "is.",
    },
}

_TRUST = ("--key", "--trust", "--fingerprint", "--threshold", "--authority", "--strict")
_REPLAY = (
    *("--replay", "--replay-seed", "--budget", "--tolerance", "--allow-code", "--arg", "--env"),
    *("--jobs", "--engine"),
)
_PLAN = (
    *("--fork-at", "--window", "--horizon", "--seeds", "--seeds-from-timestamp", "--perturb"),
    *("--placebos", "--placebo-scale", "--primary", "--margin", "--threads", "--probe-at"),
    *("--evidence-every", "--evidence-digest", "--causal-break", "--segments", "--design"),
)
_OUTPUT = (
    "--require",
    "--countersign",
    "--report",
    "--format",
    "--out",
    "--figures",
    "--tables",
    "--generalise-probe",
    "--pilot",
    "--all",
    "--wide",
)

#: Titles and options, by command; a command that is not here has too few options to be grouped.
GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "run": {
        "The study, in place of the program's STUDY": _PLAN,
        "The run": (
            *("--out", "--arg", "--jobs", "--engine", "--dry-run", "--resume", "--add-seeds"),
            "--json",
        ),
        "Plan and key": ("--plan", "--deviate", "--key"),
    },
    "power": {
        "The spread": ("--sd", "--metric"),
        "What is to be shown": ("--effect", "--margin", "--power", "--tests"),
        "What is written": ("--json",),
    },
    "plan": {
        "The study, in place of the program's STUDY": _PLAN,
        "The plan": ("--out", "--arg", "--skip-data", "--key"),
    },
    "verify": {
        "Whom to trust": _TRUST,
        "What is replayed": _REPLAY,
        "What is written": (*_OUTPUT, "--json"),
    },
    "reproduce": {
        "The new study": ("--out", "--sign-with", "--resume"),
        "Whom to trust": _TRUST,
        "How": _REPLAY,
        "What is written": ("--all", "--wide", "--json"),
    },
    "report": {
        "Whom to trust": _TRUST,
        "What is replayed": _REPLAY,
        "What is written": (*_OUTPUT, "--json"),
    },
    "checklist": {
        "Whom to trust": _TRUST,
        "What is replayed": _REPLAY,
        "What is written": ("--for", *_OUTPUT),
    },
    "export": {
        "What is written": ("--format", "--out"),
        "Of a Sigstore bundle": ("--by",),
        "Whom to trust, of an RO-Crate": ("--key", "--fingerprint"),
        "What people say, of an RO-Crate": (
            *("--title", "--description", "--license", "--author", "--published"),
        ),
    },
    "replay": {
        "Whom to trust": ("--trust", "--fingerprint"),
        "The run": ("--steps", "--verbose"),
        "What is written": ("--key", "--no-write", "--json"),
    },
}

#: Lines that can be typed, by command.
EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "run": (
        "auditkit run study.py --dry-run",
        "auditkit run study.py --out runs/mine --jobs 2",
        "auditkit run study.py --out runs/v --perturb adam-reset:moments=v,step=keep",
        "auditkit run study.py --out runs/mine --add-seeds 8-11",
        "auditkit run study.py --out /shared/mine --engine dask:tcp://node:8786",
        "auditkit run --out runs/loop --fork-at 100 --window 20 --horizon 300 \\",
        "    --seeds 0-4 --perturb adam-reset -- python train.py --seed {seed}",
    ),
    "power": (
        "auditkit power runs/pilot --effect 0.01 --metric accuracy",
        "auditkit power --sd 0.02 --effect 0.01 --tests 4",
    ),
    "plan": (
        "auditkit plan study.py --out plan.json",
        "auditkit run study.py --plan plan.json --out runs/mine",
    ),
    "verify": (
        "auditkit verify runs/mine",
        "auditkit verify study --fingerprint SHA256:... --replay none",
        "auditkit verify study --fingerprint SHA256:... --allow-code --replay 4",
        "auditkit verify runs/mine --json report.json",
    ),
    "reproduce": ("auditkit reproduce study --fingerprint SHA256:... --allow-code --out again",),
    "report": (
        "auditkit report runs/mine --out report.html --replay all",
        "auditkit report runs/mine --out report.html --figures figures --tables tables",
    ),
    "checklist": (
        "auditkit checklist runs/mine --format latex --replay all",
        "auditkit checklist runs/mine --report report.json --out CHECKLIST.md",
        "auditkit checklist runs/mine --for aaai --for mlsys --format html --out c.html",
    ),
    "replay": ("auditkit replay runs/exp1 -- python train.py",),
    "doctor": ("auditkit doctor study.py", "auditkit doctor -- python train.py"),
    "show": ("auditkit show runs/mine", "auditkit show runs/mine --json"),
    "diff": (
        "auditkit diff runs/a runs/b",
        "auditkit diff runs/a#seed-0/control runs/b#seed-0/control",
    ),
    "explain": ("auditkit explain rho", "auditkit explain exit-6", "auditkit explain study"),
    "pack": (
        "auditkit pack runs/mine --out mine.zip",
        "auditkit verify mine.zip --fingerprint SHA256:...",
    ),
    "list": ("auditkit list runs", "auditkit list runs --json"),
    "close": ("auditkit close runs/exp1", "auditkit close runs/exp1 --allow-lost"),
    "perturbations": ("auditkit perturbations", "auditkit perturbations --json"),
    "keygen": ("auditkit keygen", "auditkit keygen --out author.key --encrypt"),
    "sign": ("auditkit sign runs/mine --key second-author.key",),
    "request": ("auditkit timestamp request runs/mine",),
    "attach": ("auditkit timestamp attach runs/mine manifest.tsr --authority root.pem",),
    "export": (
        "auditkit export runs/mine --format sigstore --out mine.sigstore.json",
        "auditkit export runs/mine --format ro-crate --out crate --license CC-BY-4.0 \\",
        "    --author 'Ada Lovelace <0000-0002-1825-0097>' --title 'Momentum'",
    ),
}


#: What stands for the value of an option of free text, by its name, or after its command's.
METAVARS: Mapping[str, str] = {
    "--add-seeds": "SEEDS",
    "--arg": "NAME=VALUE",
    "--author": "PERSON",
    "--causal-break": "PERTURBATION",
    "--segments": "WORDS",
    "--design": "DESIGN",
    "--authority": "FILE",
    "--budget": "TIME",
    "--by": "SHA256:...",
    "--countersign": "FILE",
    "--description": "ABSTRACT",
    "--effect": "X",
    "--engine": "ENGINE",
    "--env": "NAME",
    "--figures": "DIR",
    "--evidence-digest": "RECIPE",
    "--fingerprint": "SHA256:...",
    "--fork-at": "STEPS",
    "--ignore": "SECTIONS",
    "--json": "FILE",
    "--key": "FILE",
    "--license": "LICENCE",
    "--margin": "METRIC=X",
    "--out": "FILE",
    "--perturb": "PERTURBATION",
    "--pilot": "MANIFEST",
    "--placebo-scale": "N",
    "--plan": "FILE",
    "--primary": "METRIC",
    "--probe-at": "STEPS",
    "--published": "DATE",
    "--replay": "AMOUNT",
    "--report": "FILE",
    "--require": "VERDICT",
    "--seeds": "SEEDS",
    "--sign-with": "FILE",
    "--tables": "DIR",
    "--title": "TITLE",
    "--trust": "FILE",
    "--metric": "METRIC",
    "--power": "P",
    "--sd": "SD",
    "power --margin": "X",
    "reproduce --out": "DIR",
    "run --out": "DIR",
}


class Command(click.Command):
    """A command whose help page has groups and examples, and that takes no option twice."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for param in self.params:
            if isinstance(param, click.Option) and param.metavar is None and not param.is_flag:
                name = max(param.opts, key=len)
                param.metavar = METAVARS.get(f"{self.name} {name}", METAVARS.get(name))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse what would silently count for nothing: the first of two values."""
        if not ctx.resilient_parsing:
            _, _, given = self.make_parser(ctx).parse_args(list(args))
            for param, times in Counter(map(id, given)).items():
                option = next(item for item in given if id(item) == param)
                if times > 1 and isinstance(option, click.Option) and _is_single(option):
                    raise UsageError(f"{max(option.opts, key=len)} is given twice")
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, each in its group."""
        for title, options in grouped(self, ctx):
            with formatter.section(title):
                formatter.write_dl(options)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        examples = EXAMPLES.get(self.name or "", ())
        if examples:
            with formatter.section("Examples"):
                for line in examples:
                    indent = formatter.current_indent
                    formatter.write(f"{'':{indent}}{line}\n")


class Group(click.Group):
    """A group whose help page has every command with its whole summary."""

    def summaries(self, ctx: click.Context) -> dict[str, str]:
        """Every command that is listed, with its summary."""
        found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        return {
            name: command.get_short_help_str(limit=1000)
            for name, command in found.items()
            if command and not command.hidden
        }

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every command, by what it is for."""
        shown = self.summaries(ctx)
        placed = {name for names in SECTIONS.values() for name in names}
        rest = tuple(name for name in shown if name not in placed)
        title = "Commands" if len(rest) == len(shown) else "Other"
        width = max(map(len, shown))
        for heading, names in (*SECTIONS.items(), (title, rest)):
            rows = [(f"{name:{width}}", shown[name]) for name in names if name in shown]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def grouped(
    command: click.Command, ctx: click.Context
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The options of a command with their help, by the title of their group."""
    left = {param: record for param in command.get_params(ctx) if (record := _record(param, ctx))}
    for title, names in GROUPS.get(command.name or "", {}).items():
        inside = [p for name in names for p in left if name in (*p.opts, *p.secondary_opts)]
        if inside:
            yield title, [left.pop(param) for param in inside]
    if left:
        yield "Options" if command.name not in GROUPS else "Other", list(left.values())


def _record(param: click.Parameter, ctx: click.Context) -> tuple[str, str] | None:
    return param.get_help_record(ctx) if isinstance(param, click.Option) else None


def _is_single(option: click.Option) -> bool:
    return not (option.multiple or option.is_flag or option.count)
