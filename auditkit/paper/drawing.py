"""Pictures by matplotlib, which is loaded only where one is drawn: SVG for a page, PDF and PNG.

The same picture has the same bytes, whoever's settings are in force: matplotlib's own defaults
and the few below are used, and nothing says when it was made.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from auditkit.errors import UsageError
from auditkit.formats.quote import printable
from auditkit.paper.markup import Html, text
from auditkit.paper.style import INK

_MATPLOTLIB = "matplotlib"

#: Who made a file, in its metadata.
MADE_BY = "auditkit report"

#: Points: as wide as a phone, so that a picture is read there as it is.
_WIDTH = 5.2

#: What would choose a screen is left as it is.
_NOT_OURS = (
    "backend",
    "interactive",
    "toolbar",
    "webagg",
    "timezone",
    "macosx",
    "tk.",
    "figure.hooks",
)

_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "text.parse_math": False,
    "text.usetex": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "auditkit",
    "pdf.fonttype": 42,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}

_SETTINGS: dict[str, dict[str, Any]] = {
    "svg": {
        "metadata": {"Date": None, "Creator": None, "Format": None, "Type": None},
        "transparent": True,
    },
    "pdf": {"metadata": {"CreationDate": None, "Creator": MADE_BY, "Producer": MADE_BY}},
    "png": {"metadata": {"Software": MADE_BY}, "dpi": 200},
}

_BEFORE_SVG = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_LEFT_OUT = re.compile(r"\s*<metadata>.*?</metadata>|\s*<style[^>]*>.*?</style>", re.DOTALL)
_OPENING = re.compile(r"<svg [^>]*>")
_VIEW = re.compile(r'viewBox="[^"]*"')


@dataclass(frozen=True)
class Drawn:
    """A picture that can be drawn.

    Attributes:
        name: What it is called in files.
        title: Its heading.
        caption: What it shows and how to read it.
        height: Inches.
        draw: Draws it on an empty figure of matplotlib.
    """

    name: str
    title: str
    caption: str
    height: float
    draw: Callable[[Any], None]


def require_matplotlib() -> None:
    """Look whether pictures can be drawn, and load nothing: matplotlib makes a folder at once.

    Raises:
        UsageError: When matplotlib is not installed.
    """
    if importlib.util.find_spec(_MATPLOTLIB) is None:
        raise UsageError(
            "auditkit report needs matplotlib, which is not installed",
            hint="pip install matplotlib, or auditkit[report]",
        )


def to_svg(drawn: Drawn) -> Html:
    """The picture as part of a page: text as text, in the page's colour, with its title."""
    source = to_bytes(drawn, "svg").decode("utf-8")
    source = _LEFT_OUT.sub("", _BEFORE_SVG.sub("", source))
    view = _VIEW.search(source)
    said = text(f"{drawn.title}. {drawn.caption}")
    opening = f'<svg {view[0] if view else ""} role="img" aria-label="{said}">'
    source = _OPENING.sub(lambda _: opening, source, count=1)
    # several pictures stand in one page, whose identifiers are to be different
    source = re.sub(r'\bid="', f'id="{drawn.name}-', source)
    source = re.sub(r'href="#', f'href="#{drawn.name}-', source).replace("xlink:href", "href")
    source = source.replace("url(#", f"url(#{drawn.name}-")
    return Html(source.replace(INK, "currentColor").strip())


def to_bytes(drawn: Drawn, form: str) -> bytes:
    """The picture as ``svg``, ``pdf`` or ``png``."""
    with _settings():
        figure = importlib.import_module(f"{_MATPLOTLIB}.figure").Figure(
            figsize=(_WIDTH, drawn.height), layout="constrained"
        )
        drawn.draw(figure)
        out = io.BytesIO()
        figure.savefig(out, format=form, **_SETTINGS[form])
    return out.getvalue()


def label(words: str, limit: int = 30) -> str:
    """Words from a file as matplotlib can write them in any font, in lines of a length."""
    plain = printable(words).encode("ascii", "backslashreplace").decode("ascii")
    # behind a separator where there is one, else in the middle of a word
    lines = re.findall(rf".{{1,{limit}}}(?:$|(?<=[,:+/ ]))|.{{1,{limit}}}", plain)
    return "\n".join(lines if len(lines) <= 3 else [*lines[:2], "..."])


def _settings() -> AbstractContextManager[None]:
    library = importlib.import_module(_MATPLOTLIB)
    defaults = library.rcParamsDefault
    own = {name: defaults[name] for name in defaults if not name.startswith(_NOT_OURS)}
    found: AbstractContextManager[None] = library.rc_context({**own, **_STYLE})
    return found
