"""What artifact committees ask for: ACM's badges and the unified artifact appendix."""

from __future__ import annotations

from auditkit.paper.asking import Asked, asker
from auditkit.paper.neurips import access, reproducibility, setting, significance
from auditkit.paper.questions import Source
from auditkit.paper.topics import (
    by_others,
    commands,
    data,
    duration_and_size,
    hardware,
    inventory,
    measures,
    models,
    nothing,
    replayed,
    runs,
    seeding,
    software,
    together,
)

ACM_LIST = Source(
    "acm",
    "ACM badges",
    "ACM Artifact Review and Badging, version 1.1",
    "Version 1.1 of 24 August 2020 (https://www.acm.org/publications/policies/"
    "artifact-review-and-badging-current). It has names and no numbers. Badges are given by a "
    "committee: here is what it may look at.",
)

APPENDIX_LIST = Source(
    "mlsys",
    "Artifact appendix",
    "Artifact appendix (MLSys, ACM conferences)",
    "Sections of the unified artifact appendix of cTuning, docs/template/ae.tex, V20240722 "
    "(https://github.com/ctuning/artifact-evaluation), which MLSys and several ACM conferences "
    "use. Rows of A.2 that are the author's alone are one item here.",
)

_acm, _mlsys = (asker(source.key, source.name) for source in (ACM_LIST, APPENDIX_LIST))

ACM_ASKED: tuple[Asked, ...] = (
    _acm(
        "Available",
        "Artifacts available",
        "Do the artifacts lie in an archive that lasts, under an identifier of their own?",
        "check 3; list of files (auditkit export --format ro-crate makes a folder for an archive)",
        inventory,
        "The archive and its DOI.",
    ),
    _acm(
        "Functional documented",
        "Functional: documented",
        "Is it told what is there and how it is used?",
        "the signed record of plan and program",
        commands,
        "A description of the artifact for its readers.",
    ),
    _acm(
        "Functional consistent",
        "Functional: consistent",
        "Do the artifacts belong to the paper, and give what it reports?",
        "check 10; the estimates of the primary metric",
        significance,
        "Which tables and figures of the paper these numbers are.",
    ),
    _acm(
        "Functional complete",
        "Functional: complete",
        "Is everything there that can be given?",
        "check 3; files by role, code",
        together(inventory, access),
        "Data that are not part of the run folder.",
    ),
    _acm(
        "Functional exercisable",
        "Functional: exercisable",
        "Can it be executed, and do its results come out?",
        "check 8; what was re-executed",
        replayed,
        "What a committee's machine needs.",
        (8,),
    ),
    _acm(
        "Reusable",
        "Reusable",
        "Is it documented and built so well that others can use it for something else?",
        "nothing",
        nothing,
        "All of it.",
    ),
    _acm(
        "Reproduced",
        "Results reproduced",
        "Did others get the main results with the authors' artifacts?",
        "countersignatures of trusted keys other than the author's",
        by_others,
        "Who they are: a key is no person.",
    ),
    _acm(
        "Replicated",
        "Results replicated",
        "Did others get the main results without the authors' artifacts?",
        "nothing",
        nothing,
        "All of it.",
    ),
)

APPENDIX_ASKED: tuple[Asked, ...] = (
    _mlsys(
        "A.1",
        "Abstract",
        "What is the artifact, and which results of the paper does it bear out?",
        "checks 1 to 9; manifest, plan, code digests",
        reproducibility,
        "The abstract.",
    ),
    _mlsys(
        "A.2 Program and model",
        "Check-list: program, model",
        "Which program and model are used?",
        "the signed record of model, optimizer, hyper-parameters, loader, plan",
        together(setting, models),
        "Names by which readers know them.",
    ),
    _mlsys(
        "A.2 Data set",
        "Check-list: data set",
        "Which data are used?",
        "digests of what was consumed and of the probe",
        data,
        "Name, source, size and licence of the data.",
    ),
    _mlsys(
        "A.2 Run-time environment",
        "Check-list: run-time environment",
        "Which system, libraries and versions are needed?",
        "the signed record of the environment",
        software,
        "What has to be installed by hand; whether root is needed.",
    ),
    _mlsys(
        "A.2 Hardware",
        "Check-list: hardware",
        "Which machine is needed?",
        "the signed record of the hardware (self-reported)",
        hardware,
        "What of it is needed and what only happened to be there; memory.",
    ),
    _mlsys(
        "A.2 Run-time state",
        "Check-list: run-time state",
        "What of the machine's state do the results depend on?",
        "check 5; recipe, streams, seeds, and what is not covered",
        seeding,
        "Caches, load and whatever else auditkit does not know.",
        (5,),
    ),
    _mlsys(
        "A.2 Execution",
        "Check-list: execution, experiments",
        "How is it executed, and which experiments are there?",
        "check 3; seeds, branches, commands",
        together(runs, commands),
        "Experiments outside of this study.",
    ),
    _mlsys(
        "A.2 Metrics",
        "Check-list: metrics, output",
        "What is measured, and what comes out?",
        "the plan's primary metric, files by role",
        together(measures, inventory),
        "Which output is which of the paper's results.",
    ),
    _mlsys(
        "A.2 Disk space and time",
        "Check-list: disk space, time to complete",
        "How much room and time does it take?",
        "check 3; file sizes, and the run's times (self-reported)",
        duration_and_size,
        "The time that preparing it takes.",
    ),
    _mlsys(
        "A.2 Rest",
        "Check-list: the author's rows",
        "Algorithm, compilation, transformations, binary, workflow framework; is it public, under "
        "which licences, and with which DOI?",
        "nothing",
        nothing,
        "All of it.",
    ),
    _mlsys(
        "A.3",
        "Description",
        "How is it got, and what does it depend on (hardware, software, data, models)?",
        "check 3; code files, commit, environment",
        access,
        "From where readers get it (A.3.1); the rest stands under A.2.",
    ),
    _mlsys(
        "A.4",
        "Installation",
        "How is it installed?",
        "the signed record of the environment",
        software,
        "The commands that install it.",
    ),
    _mlsys(
        "A.5",
        "Experiment workflow",
        "What is done, step by step?",
        "the signed record of plan and program",
        commands,
        "Steps before and after.",
    ),
    _mlsys(
        "A.6",
        "Evaluation and expected results",
        "What should come out, and how far may it be off?",
        "checks 8 and 10; what was re-executed, and the estimates",
        together(replayed, significance),
        "Which of the paper's claims they bear out; the greatest deviation that is still well.",
    ),
    _mlsys(
        "A.7",
        "Customisation and notes",
        "What can be changed, and what else is there to know (A.7, A.8)?",
        "nothing",
        nothing,
        "All of it.",
    ),
)
