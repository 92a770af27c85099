"""Every list that ``auditkit checklist`` fills, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from auditkit.paper.artifact_lists import ACM_ASKED, ACM_LIST, APPENDIX_ASKED, APPENDIX_LIST
from auditkit.paper.asking import Asked
from auditkit.paper.neurips_questions import NEURIPS_ASKED, NEURIPS_LIST
from auditkit.paper.paper_lists import (
    AAAI_ASKED,
    AAAI_LIST,
    PINEAU_ASKED,
    PINEAU_LIST,
    REFORMS_ASKED,
    REFORMS_LIST,
)
from auditkit.paper.questions import Question, Source
from auditkit.paper.survey_questions import SURVEY_LIST, SURVEY_QUESTIONS

_ABOUT_PAPERS: tuple[tuple[Source, tuple[Asked, ...]], ...] = (
    (NEURIPS_LIST, NEURIPS_ASKED),
    (PINEAU_LIST, PINEAU_ASKED),
    (AAAI_LIST, AAAI_ASKED),
    (REFORMS_LIST, REFORMS_ASKED),
    (ACM_LIST, ACM_ASKED),
    (APPENDIX_LIST, APPENDIX_ASKED),
)

#: By what ``--for`` takes.
LISTS: Mapping[str, Source] = MappingProxyType(
    {source.name: source for source in (SURVEY_LIST, *(source for source, _ in _ABOUT_PAPERS))}
)

#: What is filled where nobody says which.
DEFAULT_LISTS = ("survey", "neurips")

#: Every question by its list.
QUESTIONS: Mapping[str, tuple[Question, ...]] = MappingProxyType(
    {
        SURVEY_LIST.name: SURVEY_QUESTIONS,
        **{source.name: tuple(item.question for item in asked) for source, asked in _ABOUT_PAPERS},
    }
)

#: What has facts for each question about a paper, by its key.
ABOUT_PAPERS: Mapping[str, Asked] = MappingProxyType(
    {item.question.key: item for _, asked in _ABOUT_PAPERS for item in asked}
)
