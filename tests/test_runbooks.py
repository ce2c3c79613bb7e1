"""Commands and settings that README and the runbooks name are there; somebody reads them at night."""

import re
from pathlib import Path

import pytest
import typer

from agents.worker import STAGES
from postroad.cli import app
from postroad.settings import NOT_SETTINGS, PREFIX, Settings

ROOT = Path(__file__).parents[1]
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
PAGES = [ROOT / "README.md", *RUNBOOKS]
WANTED = {"rolling-upgrade", "rolling-restart", "broker-loss", "lost-rocksdb", "clickhouse-away", "disk-full",
          "stalled-worker", "dead-letters", "site-refuses", "analytics", "warm-up", "provider-blocks-us", "complaints-rise",
          "tenant-turns-bad", "replay", "restore", "region-lost", "backlog-grows", "bounces-rise", "key-rotation", "orphan-found", "target-down"}  # fmt: skip
# Names in code spans that end like settings and are none: columns, fields.
NOT_OURS = {"possible_duplicate", "submission_id"}


def code(page: Path) -> list[str]:
    """Code spans, and lines of code blocks that begin with the command."""
    text = page.read_text("utf-8")
    blocks = [
        line.strip() for block in re.findall(r"^```.*?\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()
    ]
    commands = [line[line.index("postroad ") :] for line in blocks if re.match(r"(\$ )?(\.venv/bin/)?postroad ", line)]
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [*commands, *(" ".join(span.split()) for span in spans)]


def commands(page: Path) -> list[list[str]]:
    found = [span.split("#")[0].split() for span in code(page) if span.startswith("postroad ")]
    return [alternative for words in found for alternative in spelled_out(words[1:])]


def spelled_out(words: list[str]) -> list[list[str]]:
    """`held list | release | drop`, and `list|show`, are several commands."""
    text = re.sub(r"\s*\|\s*", "|", " ".join(words))
    first = next((word for word in text.split() if "|" in word and not word.startswith("[")), "")
    return [text.replace(first, one).split() for one in first.split("|")] if first else [text.split()]


def test_every_page_is_there():
    assert {page.stem for page in RUNBOOKS} == WANTED


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_exists_with_its_options(page):
    for words in commands(page):
        command, rest = typer.main.get_command(app), list(words)
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            name = rest.pop(0)
            assert name in command.commands, f"{page.name}: postroad {' '.join(words)}: no {name}"
            command = command.commands[name]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in rest:
            word = word.strip("[]").partition("=")[0]
            assert not word.startswith("--") or word in options, f"{page.name}: postroad {' '.join(words)}: no {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_variable_is_a_setting(page):
    text = page.read_text("utf-8")
    for name in re.findall(rf"\b{PREFIX}[A-Z_]+[A-Z]\b", text):
        assert name in NOT_SETTINGS or name.removeprefix(PREFIX).lower() in Settings.model_fields, (
            f"{page.name}: {name}"
        )


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_every_setting_exists(page):
    """A code span of one word with an underscore, and any word that the text calls a setting."""
    text = page.read_text("utf-8")
    named = set(re.findall(r"settings? `([a-z_]+)`", text))
    named |= {word for span in code(page) for word in re.findall(r"^[a-z]+(?:_[a-z]+)+", span)}
    unknown = named - Settings.model_fields.keys() - NOT_OURS - set(STAGES)
    assert not {name for name in unknown if not (ROOT / "avro" / f"{name}.avsc").exists() and name not in helpers()}, (
        unknown
    )


def helpers() -> set[str]:
    """Python names of avro/ and tables/ that the part for developers speaks of."""
    text = "".join(path.read_text("utf-8") for folder in ("avro", "tables") for path in (ROOT / folder).glob("*.py"))
    return set(re.findall(r"^def (\w+)", text, re.M))


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_every_file_and_module_exists(page):
    text = page.read_text("utf-8")
    for place in re.findall(r"\b((?:docs|topics|tables|avro|loadtest)/[\w./-]+\.(?:md|py))\b", text):
        assert (ROOT / place).exists(), f"{page.name}: {place}"
    for module in re.findall(r"python -m ([a-z_.]+[a-z])", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page.name}: {module}"


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_page_is_a_page_and_says_when_it_is_over(page):
    text = page.read_text("utf-8")
    assert len(text.splitlines()) <= 70, "more than a page"
    for part in ("# ", "## "):
        assert re.search(rf"^{part}", text, re.M)
    assert page.stem == "dead-letters" or "## Over when" in text


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_page_says_when_and_how_it_was_tried_or_that_it_was_not(page):
    text = page.read_text("utf-8")
    assert re.search(r"\bTried 20\d\d-\d\d-\d\d|\bNot tried:", text)
