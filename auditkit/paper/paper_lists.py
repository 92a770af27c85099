"""Lists about a paper's computations: Pineau's, of AAAI, and REFORMS; in this project's words."""

from __future__ import annotations

from auditkit.paper.asking import Asked, asker
from auditkit.paper.neurips import access, setting, significance
from auditkit.paper.questions import Source
from auditkit.paper.topics import (
    commands,
    data,
    duration_and_size,
    evaluation,
    hardware,
    measures,
    models,
    nothing,
    runs,
    seeding,
    software,
    together,
)

PINEAU_LIST = Source(
    "pineau",
    "Pineau v2.0",
    "Machine Learning Reproducibility Checklist (Pineau) v2.0, parts 3 to 5",
    "Version 2.0 of 7 April 2020 (https://www.cs.mcgill.ca/~jpineau/"
    "ReproducibilityChecklist-v2.0.pdf). Its items have no numbers: 4.2 is the second of its "
    "fourth part. Parts 1 (models, algorithms) and 2 (theory) are not here: nothing recorded "
    "bears on them.",
)

AAAI_LIST = Source(
    "aaai",
    "AAAI",
    "AAAI Reproducibility Checklist, items 4.7 to 4.13",
    "Numbers as in ReproducibilityChecklist.tex of the AAAI-26 author kit "
    "(https://aaai.org/conference/aaai/aaai-26/reproducibility-checklist/). It is answered by yes, "
    "partial, no or NA.",
)

REFORMS_LIST = Source(
    "reforms",
    "REFORMS",
    "REFORMS, items 2a to 2c",
    "Module 2 (computational reproducibility) of Kapoor et al., Science Advances 10, eadk3452 "
    "(2024), https://reforms.cs.princeton.edu. Each item wants the section or page of its report.",
)

_pineau, _aaai, _reforms = (
    asker(source.key, source.name) for source in (PINEAU_LIST, AAAI_LIST, REFORMS_LIST)
)
_WHERE = "Where the paper says it (section)."

PINEAU_ASKED: tuple[Asked, ...] = (
    _pineau(
        "3.1",
        "Data: statistics",
        "How many examples are there, and what else describes the data set?",
        "the signed record of the loader and of what was consumed",
        data,
        "The size of the data set and its other statistics: what was consumed is recorded, not "
        "what there is.",
    ),
    _pineau(
        "3.2",
        "Data: splits",
        "How were the data split for training, validation and test?",
        "digests of what was consumed and of the probe",
        data,
        "The splits and how they were made. No check shows that they do not overlap.",
    ),
    _pineau(
        "3.3",
        "Data: exclusion and preprocessing",
        "What was left out of the data, and how were they prepared?",
        "nothing",
        nothing,
        "All of it.",
    ),
    _pineau(
        "3.4",
        "Data: where to get them",
        "From where can the data, or the simulator, be loaded down?",
        "the digests by which a download can be recognised",
        data,
        "The link.",
    ),
    _pineau(
        "3.5",
        "Data: how they were collected",
        "If the data are new, how were they collected and their quality held?",
        "nothing",
        nothing,
        "All of it, where the data are new.",
    ),
    _pineau(
        "4.1",
        "Code: dependencies",
        "Which software does the code depend on?",
        "the signed record of the environment",
        software,
        "A file that installs them.",
    ),
    _pineau(
        "4.2",
        "Code: training",
        "Is the code that trains given?",
        "check 3; code files, commit, factory and arguments",
        access,
        "Where it is open to readers.",
    ),
    _pineau(
        "4.3",
        "Code: evaluation",
        "Is the code that evaluates given?",
        "check 3; code and outcome files, probe",
        evaluation,
        "Code that evaluates outside of the study.",
    ),
    _pineau(
        "4.4",
        "Code: trained models",
        "Are trained models given?",
        "check 3; the snapshots at t0, and digests of later states",
        models,
        "Models beside these, and where readers get them.",
    ),
    _pineau(
        "4.5",
        "Code: results and commands",
        "Is there a README with the results and the exact commands that give them?",
        "the signed record of plan and program",
        commands,
        "The README and its table of results.",
    ),
    _pineau(
        "5.1",
        "Results: hyper-parameters",
        "Which hyper-parameters were tried, how were they chosen, and which were used in the end?",
        "the signed record of what was used",
        setting,
        "What was tried, and how the choice was made.",
    ),
    _pineau(
        "5.2",
        "Results: number of runs",
        "How many training and evaluation runs were there, exactly?",
        "check 3; seeds and branches",
        runs,
        "Runs outside of this study: no manifest can show that there were none.",
    ),
    _pineau(
        "5.3",
        "Results: measure",
        "Of which measure or statistic are the results, and how is it defined?",
        "the plan's primary metric",
        measures,
        "The definition in the paper.",
    ),
    _pineau(
        "5.4",
        "Results: centre and variation",
        "Are a central tendency and a variation given?",
        "check 10; estimates, intervals, tests",
        significance,
        "Whether the paper's numbers are these.",
    ),
    _pineau(
        "5.5",
        "Results: time or energy",
        "How long does a result take, or how much energy?",
        "the signed record of the run's times (self-reported)",
        duration_and_size,
        "Energy, and time a result where it is not that of the whole run.",
    ),
    _pineau(
        "5.6",
        "Results: machines",
        "On which computers were the experiments run?",
        "the signed record of hardware and software (self-reported)",
        together(hardware, software),
        "Memory, cluster and whatever else is not recorded.",
    ),
)

AAAI_ASKED: tuple[Asked, ...] = (
    _aaai(
        "4.7",
        "Seeds",
        "Where randomness plays a part: is it told how seeds are set, well enough to repeat it?",
        "check 5; recipe, streams, seeds, and what is not covered",
        seeding,
        f"{_WHERE} How the seeds were chosen.",
        (5,),
    ),
    _aaai(
        "4.8",
        "Computing infrastructure",
        "Are processors, memory, operating system, and libraries with their versions named?",
        "the signed record of hardware and software (self-reported)",
        together(hardware, software),
        f"{_WHERE} The amount of memory: it is not recorded.",
    ),
    _aaai(
        "4.9",
        "Metrics",
        "Are the metrics defined formally, and is it told why these?",
        "the plan's primary metric, and what was computed",
        measures,
        f"{_WHERE} Why these metrics.",
    ),
    _aaai(
        "4.10",
        "Number of runs",
        "How many runs is each result made of?",
        "check 3; seeds and branches",
        runs,
        f"{_WHERE} Runs outside of this study.",
    ),
    _aaai(
        "4.11",
        "Variation",
        "Do the results say more than one number: variation, confidence or a distribution?",
        "check 10; estimates, intervals, tests",
        significance,
        f"{_WHERE} Whether the paper's numbers are these.",
    ),
    _aaai(
        "4.12",
        "Tests",
        "Is a better or worse result judged by a fitting statistical test?",
        "check 10; tests and their correction",
        significance,
        f"{_WHERE} Tests of comparisons outside of this study.",
    ),
    _aaai(
        "4.13",
        "Final hyper-parameters",
        "Are all hyper-parameters listed that the experiments used in the end?",
        "the signed record of model, optimizer, hyper-parameters, loader, plan",
        setting,
        f"{_WHERE} Hyper-parameters that the program does not hold in model or optimizer.",
    ),
)

REFORMS_ASKED: tuple[Asked, ...] = (
    _reforms(
        "2a",
        "Data set",
        "Which data trained and evaluated the model, and by which link or DOI are they known?",
        "digests of what was consumed and of the probe",
        data,
        f"{_WHERE} What the data are, and their link or DOI.",
    ),
    _reforms(
        "2b",
        "Code",
        "Which version of which code trained, evaluated and made the results, by link or DOI?",
        "check 3; code files, commit, factory and arguments",
        together(access, evaluation),
        f"{_WHERE} The link or DOI.",
    ),
    _reforms(
        "2c",
        "Computing infrastructure",
        "On what was it computed?",
        "the signed record of hardware, software, times (self-reported)",
        together(hardware, software, duration_and_size),
        _WHERE,
    ),
)
