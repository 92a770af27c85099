"""``auditkit explain``: what is asked for is shown, plain in a pipe and rendered on a terminal."""

from __future__ import annotations

import re

import pytest
from cli_shell import CompletedCommand, Shell
from click.testing import CliRunner

from auditkit.cli import main
from auditkit.cli.console import LAYOUTS
from auditkit.manual.pages import ORDER, Section, explain, read_page, topics


def call(*arguments: str) -> CompletedCommand:
    done = CliRunner().invoke(main, ["explain", *arguments], catch_exceptions=False)
    return CompletedCommand(done.exit_code, done.stdout, done.stderr)


def test_without_a_topic_it_lists_pages_and_topics() -> None:
    done = call()
    assert (done.code, done.err) == (0, "")
    for name in ORDER:
        assert f"| {name} | {read_page(name).answers} |\n" in done.out
    for kind in ("a check", "an exit code", "a perturbation", "an error", "a word"):
        assert kind in done.out
    listed = re.findall(r"^Topics of [\w-]+: (.*)$", done.out, re.MULTILINE)
    assert {"rho", "NotTrusted", "exit-3", "adam-reset", "replay"} <= set(
        ", ".join(listed).split(", ")
    )


@pytest.mark.parametrize("name", ORDER)
def test_a_page_is_shown_whole_and_plain(name: str) -> None:
    done = call(name)
    assert done.code == 0
    assert done.out.endswith(read_page(name).text)
    assert "\x1b" not in done.out


@pytest.mark.parametrize("topic", sorted(topics().values()))
def test_every_topic_is_explained(topic: str) -> None:
    done = call(*topic.split(" "))
    assert (done.code, done.err) == (0, "")
    assert done.out.strip()


@pytest.mark.parametrize(
    ("spelt", "topic"),
    [("RHO", "rho"), ("exit 3", "exit-3"), ("nottrusted", "NotTrusted"), ("Seed-sds", "seed SDs")],
)
def test_case_and_dashes_do_not_matter(spelt: str, topic: str) -> None:
    assert call(spelt).out == call(*spelt.split()).out == call(topic).out != call().out


@pytest.mark.parametrize(
    ("word", "page"),
    [
        *((word, "estimands") for word in ("tv (recal.)", "q", "Holm", "ATE", "seed SDs", "rho")),
        *((word, "estimands") for word in ("developed", "at chance", "constant guess", "^")),
        *((word, "estimands") for word in ("over time", "t0+N", "probe_at", "effect curve")),
        *(("probe_at", "study"), ("--probe-at", "study")),
        *(("(self)", "checks"), ("trunk", "glossary"), ("json", "formats"), ("--json", "formats")),
        *(("resume", "study"), ("resume", "loop"), ("width", "study"), ("completion", "study")),
    ],
)
def test_a_word_of_a_report_leads_to_its_page(word: str, page: str) -> None:
    assert page in {found.page for found in explain(word) if isinstance(found, Section)}
    if not word.startswith("-"):
        assert f"From the page {page}: " in call(*word.split()).out


def test_a_number_that_is_a_check_and_an_exit_code_shows_both_the_check_first() -> None:
    out = call("3").out
    assert 0 <= out.index("Check 3, artifacts") < out.index("Exit code 3")
    assert "Exit code" not in call("8").out
    assert "### Check" not in call("exit-3").out


def test_a_section_says_which_page_it_is_from() -> None:
    assert call("rho").out.endswith("From the page estimands: `auditkit explain estimands`\n")


def test_an_unknown_topic_is_wrong_use_and_names_the_nearest() -> None:
    done = call("plasebo")
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(
        r"auditkit: the manual has no topic 'plasebo'; nearest: placebo, .*"
        r"\(auditkit explain UsageError\)\n",
        done.err,
    )
    done = call("qqqqqqqqqqqqqq\x1b[31m")
    assert done.code == 2
    assert "\x1b" not in done.err
    assert "`auditkit explain` lists the pages" in done.err


def test_a_terminal_gets_a_pager_with_rendered_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("auditkit.cli.explain._at_terminal", lambda: True)
    monkeypatch.setattr("click.echo_via_pager", shown.append)
    assert call("rho").out == ""
    (text,) = shown
    assert "\x1b[" in text
    assert "###" not in text
    assert "0 is the floor" in text


# What other commands say of it


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    shell = Shell.at(tmp_path_factory.mktemp("explain") / "user")
    times = ("--jobs", "1", "--horizon", "7", "--fork-at", "4", "--window", "2")
    options = (*times, "--perturb", "momentum-reset", "--seeds")
    done = shell("run", "tiny_study.py", "--out", "a", *options, "0-2")
    assert done.code == 0, done.err
    assert shell("run", "tiny_study.py", "--out", "b", *options, "0", "--placebos", "2").code == 0
    return shell


def offered(out: str) -> list[str]:
    """The lines that offer words."""
    found = re.findall(
        r"^`auditkit explain WORD` explains: (.*?)\n$", out, re.MULTILINE | re.DOTALL
    )
    return [" ".join(line.split()) for line in found]


def test_every_table_offers_its_words_once(shell: Shell) -> None:
    def told(out: str) -> list[set[str]]:
        lines = [line.split(", ") for line in offered(out)]
        words = [word for line in lines for word in line]
        assert sorted(words) == sorted(set(words))
        return [set(line) for line in lines]

    def known(name: str) -> set[str]:
        return {*LAYOUTS[name].words, *LAYOUTS[name].sometimes}

    verified = shell("verify", "a", "--jobs", "1")
    assert verified.code == 0, verified.out
    tables = ("checks", "levels", "distances", "effects")
    for name, words in zip(tables, told(verified.out), strict=True):
        assert words <= known(name), name
    seen = set().union(*told(verified.out))
    assert {word for name in tables for word in LAYOUTS[name].words} <= seen
    assert {"(self)", "trunk"} <= seen
    assert "^" not in seen
    assert told(shell("show", "a").out) == [set(LAYOUTS["branches"].words)]
    assert told(shell("diff", "a", "b").out) == [set(LAYOUTS["fields"].words)]


def test_json_offers_nothing(shell: Shell) -> None:
    for arguments in (("verify", "a", "--replay", "none", "--json", "-"), ("show", "a", "--json")):
        assert "auditkit explain" not in shell(*arguments).out
