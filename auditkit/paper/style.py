"""How a page looks: its colours, by day and by night, and its style sheet.

Colours of pictures are three of Okabe and Ito's, which colour-blind readers tell apart and which
can be seen on both grounds; tests compute every contrast.
"""

from __future__ import annotations

#: Colours of pictures: treatments, placebos, and other seeds.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
SERIES = (BLUE, VERMILION, GREEN)

#: Colour of lines that are no data: grids, and where 0 is.
GREY = "#888888"

#: What text is drawn in where a picture stands by itself; in a page it is the page's own colour.
INK = "#1a1a1a"

#: Colours of text on ``ground``, and of ``line``, by day and by night.
PALETTES = {
    "light": {
        "ground": "#ffffff",
        "raised": "#f3f3f3",
        "text": INK,
        "muted": "#575757",
        "line": "#8a8a8a",
        "link": "#00507d",
        "good": "#00593f",
        "open": "#7a4a00",
        "bad": "#9b2c00",
    },
    "dark": {
        "ground": "#151515",
        "raised": "#232323",
        "text": "#ececec",
        "muted": "#b4b4b4",
        "line": "#7d7d7d",
        "link": "#82c8f5",
        "good": "#62d6b1",
        "open": "#f0bb5c",
        "bad": "#ffab84",
    },
}

_RULES = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--ground);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
p, ul, dl { max-width: 62rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .3rem; }
a { color: var(--link); }
code { font-size: .9em; }
.verdict { font-size: 1.25rem; font-weight: bold; padding: .6rem .8rem; margin: 0 0 .5rem;
  background: var(--raised); border-left: .5rem solid currentColor; }
.good { color: var(--good); }
.open { color: var(--open); }
.bad { color: var(--bad); }
.muted { color: var(--muted); }
.fingerprint { font: bold 1.4rem/1.4 ui-monospace, monospace; }
.self-check { border-left: .2rem solid var(--line); padding-left: .8rem; }
.self-check label { display: block; }
.self-check input, .self-check progress { font: inherit; width: 100%; max-width: 34rem; }
.self-check input[type=file] { padding: 1.6rem 1rem; border: .15rem dashed var(--line); }
.self-check input[type=text] { font-family: ui-monospace, monospace; }
.wide { overflow-x: auto; margin: .8rem 0; --cover: linear-gradient(var(--ground), var(--ground));
  background: var(--cover) left / 1.2rem 100% no-repeat local,
    var(--cover) right / 1.2rem 100% no-repeat local,
    linear-gradient(to right, var(--line), transparent) left / .8rem 100% no-repeat scroll,
    linear-gradient(to left, var(--line), transparent) right / .8rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .82rem; overflow-wrap: normal; }
caption { text-align: left; break-after: avoid; font-weight: bold; padding: .2rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0;
  border-bottom: 1px solid var(--line); }
.prose td:last-child { overflow-wrap: anywhere; }
tbody th { font-weight: normal; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
th a, th abbr { text-decoration: underline dotted; color: inherit; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--link); }
figure { margin: 1.2rem 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 44rem; color: var(--text); }
figure svg text { font-family: system-ui, sans-serif !important; }
figcaption { color: var(--muted); font-size: .9rem; }
dt { font-weight: bold; margin-top: .8rem; }
dd { margin: 0 0 0 1rem; }
@media screen and (max-width: 48rem) {
  .wide:has(> .grouped) { background: none; }
  .grouped, .grouped caption, .grouped tbody, .grouped tbody th { display: block; }
  .grouped thead { display: none; }
  .grouped tr { display: flex; flex-wrap: wrap; gap: 0 .9rem; padding: .3rem 0 .3rem .6rem;
    border-top: 1px solid var(--line); }
  .grouped tr:not(.again) { border-top-width: .15rem; }
  .grouped tbody th { flex: 1 0 100%; margin-left: -.6rem; font-weight: bold; }
  .grouped tr.again th { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; }
  .grouped tbody th, .grouped td { display: block; border: 0; padding: 0; text-align: left; }
  .grouped td::before { content: attr(data-label) " "; color: var(--muted); }
}
@page { margin: 16mm 14mm; }
@media print {
  .on-screen { display: none; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .wide { overflow: visible; background: none; }
  table { font-size: 7.5pt; }
  tr, figure { break-inside: avoid; }
  figure svg { max-width: 14cm; max-height: 20cm; }
  h2, h3 { break-after: avoid; }
}
"""


def style_sheet() -> str:
    """The style sheet of a page; paper is always light."""
    night = f"@media screen and (prefers-color-scheme: dark) {{ {_variables('dark')} }}"
    return f":root {{ color-scheme: light dark; }}\n{_variables('light')}\n{night}{_RULES}"


def _variables(palette: str) -> str:
    colours = " ".join(f"--{name}: {colour};" for name, colour in PALETTES[palette].items())
    return f":root {{ {colours} }}"
