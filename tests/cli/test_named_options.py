"""Every option that a message, a hint, the README or a document names is one that there is."""

from __future__ import annotations

import functools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from craft_cli import app, shells
from craft_cli.commands.config import names
from craft_cli.generate import flags
from craft_cli.parsing import CONTEXT

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("cli", "daemon", "protos")
    for path in (ROOT / folder).rglob("*.py")
    if "_pb2" not in path.name and path.name != "foreign.py"  # whose options are others'
]
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
OPTION = re.compile(r"(?<![\w/-])--[a-z][a-z-]*[a-z]")

_OTHER_PROGRAMS = re.compile(r"\b(mlr|jq) [^:;]*")  # as hints call them
# What others are called with in craft's code and documents: their commands' own options.
_OTHERS = {
    *("--user", "--now", "--help", "--version", "--install-completion", "--show-completion"),
    *(
        "--ready-fd",
        "--inspect",
        "--lora",
        "--pictures",
        "--compared",
        "--fd",
        "--files",
        "--max-rows",
        "--device",
        "--precision",
    ),
    *(
        "--threads",
        "--sharing",
        "--lora-slots",
        "--supervised",
        "--check",
        "--layouts",
        "--fits",
        "--convert",
        "--foreground",
    ),
    *("--offload", "--chat", "--identify", "--upscalers", "--convert", "--recipe"),
}


_BEGINS = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)


def commands(command: Any, path: str = "craft") -> Iterator[tuple[str, set[str]]]:
    """Every command with its options."""
    with typer.Context(command, info_name=path, **CONTEXT) as context:
        yield path, {name for one in command.get_params(context) for name in (*one.opts, *one.secondary_opts)}
        for name in command.list_commands(context) if hasattr(command, "list_commands") else []:
            yield from commands(command.get_command(context, name), f"{path} {name}")


COMMANDS = dict(commands(app.command()))
COMMANDS["craft presets save"] |= COMMANDS["craft generate"]  # which it takes unread
ALL = set().union(*COMMANDS.values())


@functools.cache
def told(path: Path) -> list[str]:
    """The texts of a program that its users may read: help and messages, of which the daemon's docstrings are none."""
    found, before = [], tokenize.NEWLINE
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            is_statement = before in _BEGINS and "craftd" in path.parts
            if token.type == tokenize.STRING and not is_statement:
                found.append(token.string.lstrip("bfru").strip("\"'"))
            before = before if token.type in (tokenize.NL, tokenize.COMMENT) else token.type
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_code_names_exists(path: Path) -> None:
    """A text that is an option and nothing else is an argument of a process that craft starts; what such a one says
    of its arguments (worker/options.py) is said to craft. What others guess (guesses.py) is what craft does not have.
    """
    named = [(name, text) for text in told(path) for name in OPTION.findall(_OTHER_PROGRAMS.sub("", text))]
    unknown = [
        name
        for name, text in named
        if name not in ALL
        and not (name in _OTHERS and (name == text or path.name == "options.py"))
        and not (text.split()[-1].startswith(name) and path.name == "guesses.py")
    ]
    assert not set(unknown) - {"--help", "--version", *shells._OPTIONS}


@pytest.mark.parametrize("path", [*SOURCES, *DOCUMENTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_line_is_one_of_crafts(path: Path) -> None:
    """`craft lora train NAME --resume`: the option is that command's, not just anybody's."""
    texts = told(path) if path.suffix == ".py" else [path.read_text(encoding="utf-8")]
    for text in texts:
        for line in re.findall(r"\bcraft ((?:[a-z-]+ ?)+[^\n`|&;$]*)", text):
            command = of(line)
            if command is not None:
                unknown = [name for name in OPTION.findall(line.partition(" #")[0]) if name not in COMMANDS[command]]
                assert not set(unknown) - {"--help", "--version"}, (path, line)


def of(line: str) -> str | None:
    """The command that a line calls; None where it is prose."""
    words = line.split()
    for count in (2, 1):
        if (called := " ".join(["craft", *words[:count]])) in COMMANDS and len(words) >= count:
            return called
    return None


def test_every_field_is_said_as_an_option_that_exists() -> None:
    for command, table in (("craft generate", flags.GENERATE), ("craft lora train", flags.TRAIN)):
        assert {flag for flag in table.values() if flag.startswith("--")} <= COMMANDS[command]


@pytest.mark.parametrize("path", [*SOURCES, *DOCUMENTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_is_named_exists(path: Path) -> None:
    texts = told(path) if path.suffix == ".py" else [path.read_text(encoding="utf-8")]
    sections = "|".join(sorted({name.partition(".")[0] for name in names()}))
    for text in texts:
        for name in re.findall(rf"\bcraft config (?:set|get|unset) ((?:{sections})\.[a-z]\w*)", text):
            assert name in names(), (path, name)
        for name in re.findall(rf"\bset ((?:{sections})\.[a-z]\w*)", text):
            assert name in names(), (path, name)
