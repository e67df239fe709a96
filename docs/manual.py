"""Writes the manual pages in docs/man from the commands themselves: `make man`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from craft_cli import app
from craft_cli.parsing import CONTEXT
from craft_protos.version import __version__

FOLDER = Path(__file__).with_name("man")
VARIABLES = {
    "CRAFT_HOST": "The daemon to use: unix:PATH or HOST:PORT. Unset: this machine's own, started where none runs.",
    "CRAFT_API_KEY": "The key to show to a daemon elsewhere.",
    "CRAFT_API_KEY_FILE": "A file that holds it.",
    "CRAFT_CA": "A PEM file with the authority that has signed the certificate of a daemon elsewhere.",
    "CRAFT_AUTOSTART": "0: start no daemon.",
    "CRAFT_JOIN_TOKEN": "The token that `craft worker join` spends.",
    "CRAFT_CONFIG": "The configuration file.",
    "CRAFT_DATA_DIR": "Where pictures, models and the database lie.",
    "CRAFT_STATE_DIR": "Where logs lie.",
    "CRAFT_RUNTIME_DIR": "Where the socket lies.",
}
EXITS = {
    "0": "done",
    "1": "the job failed, or somebody said no",
    "2": "a wrong call",
    "65": "bad data",
    "66": "no such model, LoRA, job or file",
    "69": "no daemon",
    "70": "a bug in craft",
    "73": "the file exists",
    "74": "it cannot be read or written",
    "75": "try later",
    "77": "not allowed",
    "78": "a wrong setting",
    "130": "interrupted",
}


def pages() -> dict[str, str]:
    """Each page's text by its file's name: craft.1, and one for each group of commands."""
    root = app.command()
    with typer.Context(root, info_name="craft", **CONTEXT) as context:
        members = {name: root.get_command(context, name) for name in root.list_commands(context)}
    groups = {name: one for name, one in members.items() if hasattr(one, "list_commands")}
    leaves = {name: one for name, one in members.items() if name not in groups}
    found = {"craft.1": "".join(_whole(root, leaves, groups))}
    for name, group in groups.items():
        found[f"craft-{name}.1"] = "".join(_of_group(name, group, list(groups)))
    return found


def _whole(root: Any, leaves: dict[str, Any], groups: dict[str, Any]) -> Iterator[str]:
    yield _head("craft", "draw pictures from words")
    yield _section("SYNOPSIS") + ".B craft\n.I COMMAND\n[\\fIOPTIONS\\fR] ...\n"
    yield _section("DESCRIPTION") + _prose(root.help)
    yield _section("COMMANDS")
    for name, command in leaves.items():
        yield from _command(f"craft {name}", command)
    yield _section("GROUPS OF COMMANDS")
    for name, group in groups.items():
        yield f".TP\n.BR craft\\-{_text(name)} (1)\n{_text(_first_line(group.help))}\n"
    yield _section("ENVIRONMENT")
    for name, means in VARIABLES.items():
        yield f".TP\n.B {name}\n{_text(means)}\n"
    yield ".TP\n.B CRAFT_\\fISECTION\\fR_\\fINAME\\fR\nA setting, before the configuration file: craft config list.\n"
    yield _section("FILES") + "craft config path says where everything lies.\n"
    yield _section("EXIT STATUS")
    for code, means in EXITS.items():
        yield f".TP\n.B {code}\n{_text(means)}\n"
    yield _section("EXAMPLES") + _epilog(root.epilog.replace("Examples:\n", ""))
    yield _also(list(groups), "")


def _of_group(name: str, group: Any, groups: list[str]) -> Iterator[str]:
    yield _head(f"craft-{name}", _first_line(group.help).partition(". ")[0].rstrip("."))
    yield _section("SYNOPSIS") + f".B craft {_text(name)}\n.I COMMAND\n[\\fIOPTIONS\\fR] ...\n"
    yield _section("DESCRIPTION") + _prose(group.help)
    yield _section("COMMANDS")
    with typer.Context(group, info_name=f"craft {name}", **CONTEXT) as context:
        for below in group.list_commands(context):
            yield from _command(f"craft {name} {below}", group.get_command(context, below))
    if group.epilog:
        yield _section("EXAMPLES") + _epilog(group.epilog.replace("Examples:\n", ""))
    yield _also(groups, name)


def _command(path: str, command: Any) -> Iterator[str]:
    """One command: how it is called, what it does, its options, and the rest of its help."""
    with typer.Context(command, info_name=path, **CONTEXT) as context:
        usage = " ".join(_called(piece) for piece in command.collect_usage_pieces(context))
        yield f".SS {_text(path)} {_text(usage)}\n{_prose(command.help)}"
        for param in command.get_params(context):
            record = param.get_help_record(context)
            if record and "--help" not in param.opts:
                name = record[0] if param.opts[0].startswith("-") else record[0].partition(" <")[0]
                yield f".TP\n.B {_text(name)}\n{_text(record[1]) or '.br'}\n"
        yield _epilog(command.epilog or "")


def _called(piece: str) -> str:
    """ID for {ID}, [ID]... for [[ID]...]...: once is enough."""
    found = re.fullmatch(r"\{([^{}]+?)(\.\.\.)?\}(\.\.\.)?|\[(\[.*\])(\.\.\.)?\](\.\.\.)?", piece)
    if found is None:
        return piece.replace("...]...", "]...")
    return (found[1] or found[4]) + ("..." if any(found[place] for place in (2, 3, 5, 6)) else "")


def _head(name: str, about: str) -> str:
    title = f'.TH {name.upper()} 1 "" "craft {__version__}" "craft"\n'
    return f'.\\" Made from the commands: make man\n{title}{_section("NAME")}{name} \\- {_text(about)}\n'


def _also(groups: list[str], name: str) -> str:
    others = ["craft", *(f"craft-{one}" for one in groups)]
    own = f"craft-{name}" if name else "craft"
    return _section("SEE ALSO") + "".join(f".BR {_text(one)} (1)\n" for one in others if one != own)


def _section(title: str) -> str:
    return f".SH {title}\n"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _prose(text: str) -> str:
    """Paragraphs, filled by the reader's width."""
    parts = re.split(r"\n\s*\n", text.strip())
    return ".PP\n".join(f"{_text(' '.join(part.split()))}\n" for part in parts)


def _epilog(text: str) -> str:
    """Blocks behind a \\b stay as they are."""
    blocks = [block.strip("\n") for block in text.split("\b")]
    return "".join(f".PP\n.nf\n{_lines(block)}\n.fi\n" for block in blocks if block.strip())


def _lines(block: str) -> str:
    return "\n".join(_text(line) for line in block.splitlines())


def _text(text: str) -> str:
    """As roff: nothing in it is a command, and dashes are those that one types."""
    safe = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{safe}" if safe.startswith(".") else safe


def write() -> None:
    """All pages, and no others."""
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for stale in set(FOLDER.glob("*.1")) - {FOLDER / name for name in made}:
        stale.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def stale() -> list[Path]:
    """Pages that are not what the commands say."""
    made = {FOLDER / name: text for name, text in pages().items()}
    kept = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.1")}
    return sorted(path for path in made.keys() | kept.keys() if made.get(path) != kept.get(path))


if __name__ == "__main__":
    write()
