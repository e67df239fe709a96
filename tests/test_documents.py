"""What the documents point at is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from craft_cli.app import command

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    assert not [one for one in targets if "://" not in one and not (document.parent / one).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_understood(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each, on a line of its own or in a sentence: its options are there, and their values are of their kind."""
    monkeypatch.setenv("CRAFT_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "portrait.toml").write_text("steps = 40\n")
    (tmp_path / "rex.toml").write_text("rank = 4\n")
    monkeypatch.chdir(tmp_path)
    for args in _commands(document.read_text(encoding="utf-8")):
        _parse(args)
    for args in _named(document.read_text(encoding="utf-8")):
        _parse_name(args)


def test_the_pages_lead_through_a_users_day() -> None:
    """The README lists them in the order in which each page names its next one."""
    listed = re.findall(
        r"\(docs/(\w[\w-]*\.md)\)", (ROOT / "README.md").read_text().partition("| `docs` |")[2].split(";")[0]
    )
    pages = [(ROOT / "docs" / page).read_text() for page in listed]
    assert listed[0] == "install.md" and len(listed) > 10
    assert [re.findall(r"^Next: \[.*\]\((.*)\)$", page, re.MULTILINE) for page in pages] == [
        *([page] for page in listed[1:]),
        [],
    ]


def test_every_bad_input_has_the_tests_that_it_names() -> None:
    text = (ROOT / "docs" / "bad-inputs.md").read_text(encoding="utf-8")
    named, file = [], ""
    for path, test in re.findall(r"`([\w/]*(?:\.py)?)(?:::(\w+))?`", text):
        file = path if path.endswith(".py") else file
        named += [(file, test)] if path or test else []
    assert len(named) > 50
    assert not [(file, test) for file, test in named if not _has(ROOT / "tests" / file, test)]


def _has(file: Path, test: str) -> bool:
    return file.is_file() and (not test or f"def {test}(" in file.read_text(encoding="utf-8"))


def _commands(text: str) -> Iterator[list[str]]:
    """What stands behind each `craft` in blocks of code and in sentences, but for forms (`[--plan]`, `...`), variables
    and drawings.
    """
    is_code = False
    for line in text.splitlines():
        is_code ^= line.startswith("```")
        if (is_code or line.startswith("    ")) and "craft " in line and not re.search(r"craft \(|[\[$─-╿]", line):
            yield from _calls(shlex.split(line, comments=True))


def _named(text: str) -> Iterator[list[str]]:
    """The same of sentences and tables, where a command may stand by its name alone."""
    for span in re.findall(r"`(craft [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if not re.search(r"[\[$─-╿<>]|\.\.\.|…", span):
            yield from _calls(shlex.split(span.replace("\\|", "|")))


def _parse_name(args: list[str]) -> None:
    """Raises what is wrong with it besides what it leaves out."""
    try:
        _parse(args)
    except typer.Exit:
        pass
    except typer.TyperException as error:
        if not re.match("Missing parameter|.* requires an argument", str(error)):
            raise


def _calls(words: list[str]) -> Iterator[list[str]]:
    for start in (place for place, word in enumerate(words) if word == "craft"):
        ends = (place for place in range(start, len(words)) if re.match(r"([|;>]|&&|\|\|)", words[place]))
        args = words[start + 1 : next(ends, len(words))]
        if args and args[0] != "craft":  # a container's name, a folder's
            yield args


def _parse(args: list[str]) -> None:
    """Down to the last command, without running it. Raises what a user would be told."""
    found = command()
    context = found.make_context("craft", list(args))
    while hasattr(found, "resolve_command"):
        name, found, rest = found.resolve_command(context, [*context._protected_args, *context.args])
        context = found.make_context(name, rest, parent=context)
