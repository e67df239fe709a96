"""Errors as users see them: one line and a hint on stderr, or one JSON object."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from craft_protos.reasons import CraftError

if TYPE_CHECKING:
    import typer

EXIT_INTERRUPTED = 130

HOPELESS = (  # whatever is asked next
    "DAEMON_UNREACHABLE",
    "DAEMON_SILENT",
    "DAEMON_MISSING",
    "UNAUTHENTICATED",
    "NOT_ALLOWED",
    "CONFIG_INVALID",
)
A = TypeVar("A")


def report(error: CraftError, as_json: bool = False) -> int:
    """Say it on stderr; the exit code is returned."""
    if as_json:
        say(json.dumps({"error": as_dict(error)}, ensure_ascii=False))
    else:
        say(f"craft: {one_line(error.message)}")
        if error.hint:
            say(f"  {one_line(error.hint)}")
    return error.exit_code


def of_each(items: Sequence[A], work: Callable[[A], None], *, as_json: bool = False) -> int:
    """Does the work for each; what is wrong with one of several is said, and leaves the others alone.

    The exit code of the first that failed, or 0. Raises what is wrong with the only one, and what makes all hopeless.
    """
    code = 0
    for item in items:
        try:
            work(item)
        except CraftError as error:
            if len(items) == 1 or error.reason in HOPELESS:
                raise
            told = report(error, as_json)
            code = code or told
    return code


def as_dict(error: CraftError) -> dict[str, str]:
    """The contract's {"reason","message","hint"}."""
    return {"reason": error.reason, "message": one_line(error.message), "hint": one_line(error.hint)}


def say(line: str) -> None:
    """One line on stderr, where there still is one."""
    try:
        if sys.stderr is not None:
            print(line, file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody listens


def remark(line: str) -> None:
    """What a person may want to know meanwhile: said at a terminal alone."""
    if is_terminal(sys.stderr):
        say(line)


def is_terminal(stream: TextIO | None) -> bool:
    """A stream is None where it was closed before craft began."""
    return stream is not None and stream.isatty()


def one_line(text: str) -> str:
    """Text without line ends and control characters."""
    return printable(re.sub(r"\s+", " ", text)).strip()


def printable(text: str) -> str:
    """Without control characters, so that nobody's terminal is driven by it."""
    return "".join(c if c.isprintable() else " " for c in text)


def usage(error: typer.TyperException) -> CraftError:
    """A wrong call: the nearest match, or where to read on."""
    message = one_line(error.message).rstrip(".")
    context = getattr(error, "ctx", None)
    if instead := _instead(error, message, context):
        hint = f"did you mean {instead}?" if re.fullmatch(r"--[a-z-]+", instead) else instead
        return CraftError("USAGE", message.partition(". Did you mean")[0], hint)
    if near := _nearest(error, message, context):
        return CraftError("USAGE", message.partition(". Did you mean")[0], f"did you mean {' or '.join(near)}?")
    message = one_line(error.format_message()).rstrip(".")
    where = context.command_path if context is not None else "craft"
    is_first = where == "craft" and message.startswith("No such command")
    return CraftError(
        "USAGE", message, f"see `{where} --help`" + ("; to draw: craft generate PROMPT" if is_first else "")
    )


def _instead(error: typer.TyperException, message: str, context: Any) -> str:
    """The line that does here what another program does by that name; "" where nobody knows one."""
    from craft_cli import guesses

    if context is None:
        return ""
    if unknown := re.match(r"No such command '(.*?)'", message):
        return guesses.command(context.command_path, unknown[1])
    if not message.startswith("No such option"):
        return ""
    return guesses.option(context.command_path, getattr(error, "option_name", "") or "")


def _nearest(error: typer.TyperException, message: str, context: Any) -> list[str]:
    """The options or commands that may have been meant."""
    if context is None:
        return []
    from craft_protos import synonyms

    from craft_cli.generate import flags

    written = getattr(error, "option_name", "")
    if written and "No such option" in message:
        options = [name for one in context.command.get_params(context) for name in one.opts if name.startswith("--")]
        return flags.nearest(written, options)
    unknown = re.match(r"No such command '(.*?)'", message)
    if unknown is None:
        return []
    known = context.command.list_commands(context)
    return [repr(name) for name in synonyms.nearest(unknown[1], known, synonyms.COMMANDS)]


def quit_quietly() -> int:
    """The reader of our output went away: nothing more to say."""
    silence_stdout()
    return EXIT_INTERRUPTED


def silence_stdout() -> None:
    """What is still buffered goes nowhere, instead of raising at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def report_crash(error: Exception, as_json: bool) -> int:
    """A bug: the traceback goes to a file, one line to the user."""
    text = "".join(traceback.format_exception(error))
    where = _write_crash(text)
    summary = f"a bug in craft: {type(error).__name__}: {error}"
    hint = f"the traceback is in {where}" if where else one_line(text)[-500:]
    return report(CraftError("INTERNAL", summary, hint), as_json)


def _write_crash(text: str) -> Path | None:
    from craft_protos import config

    try:
        folder = config.find_paths().state_dir
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"craft-crash-{os.getpid()}.txt"
        path.write_text(text, encoding="utf-8")
    except OSError:
        return None
    return path
