"""The NeurIPS items that a manifest has facts for: what is asked, in this project's words."""

from __future__ import annotations

from auditkit.paper.asking import Asked, asker
from auditkit.paper.neurips import access, reproducibility, resources, setting, significance
from auditkit.paper.questions import NEURIPS, Source
from auditkit.paper.topics import versions

NEURIPS_LIST = Source(
    "neurips",
    NEURIPS,
    "NeurIPS Paper Checklist, items 4 to 8 and 12",
    "Numbers as in the paper checklist of NeurIPS 2024 and 2025, checklist.tex of the style files "
    "(https://neurips.cc/public/guides/PaperChecklist). Questions are shortened here: keep those "
    "of your year's file, and take answer and justification.",
)

_asked = asker(NEURIPS, "neurips")

NEURIPS_ASKED: tuple[Asked, ...] = (
    _asked(
        "4",
        "Experimental result reproducibility",
        "Does the paper itself tell enough to arrive at its main results again, whether or not "
        "code and data are given?",
        "checks 1 to 9; manifest, plan, code digests",
        reproducibility,
        "Whether the paper discloses what its claims need, and where (section); where readers get "
        "the manifest and its files.",
    ),
    _asked(
        "5",
        "Open access to data and code",
        "Can everybody get at code and data, with what has to be typed to make the main results "
        "again?",
        "check 3; code files, commit, factory and arguments, environment, digests of the data",
        access,
        "Where code and data are open to others (anonymised for review), under which licence, and "
        "how the data are obtained and prepared.",
    ),
    _asked(
        "6",
        "Experimental setting/details",
        "Are the details of training and test (splits, hyper-parameters and their choice, "
        "optimizer) told that a reader needs to make sense of the results?",
        "the signed record of model, optimizer, hyper-parameters, loader, plan",
        setting,
        "The data splits, how hyper-parameters were chosen, and where the paper says so.",
    ),
    _asked(
        "7",
        "Experiment statistical significance",
        "Are error bars given, or what else tells how certain the results are, and are they "
        "defined rightly?",
        "check 10; unit, pairs, intervals, tests, correction",
        significance,
        "Whether the paper's error bars and tests are these, and whether it says what they "
        "capture and assume.",
    ),
    _asked(
        "8",
        "Experiments compute resources",
        "Does the paper say for every experiment which machines, how much memory and how much "
        "time it takes?",
        "the signed record of hardware, run times (self-reported), steps and file sizes",
        resources,
        "Memory, and the compute of preliminary and failed runs: the manifest has neither.",
    ),
    _asked(
        "12",
        "Licenses for existing assets",
        "Are the makers of the code, data and models that were used credited, and their licences "
        "and terms named and kept to?",
        "the signed record of package versions, the data's own version and digest",
        versions,
        "Credits, licence and terms of every asset, and its source: no manifest has them.",
    ),
)
