"""Where `craft` begins and ends: the exit code of everything is decided here."""

from __future__ import annotations

import gc
import io
import os
import sys

from craft_protos.version import __version__


def main() -> None:
    """The console script. Ends without tearing down modules: grpc's take as long as a fifth of a short command."""
    gc.set_threshold(100_000, 50, 100)  # imports make many objects and no garbage
    if sys.argv[1:] != ["--version"]:
        from craft_cli import lean

        lean.begin()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # help and tables, where it cannot encode them
    os._exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line; its exit code. `--version` answers before anything is imported."""
    if argv == ["--version"]:
        return _print_version()
    return _end(_guard(argv), "--json" in argv)


def _print_version() -> int:
    try:
        print(f"craft {__version__}", flush=True)
    except OSError:
        return _end(0, as_json=False)
    return 0


def _guard(argv: list[str]) -> int:
    """The command's exit code, with every exception turned into one line."""
    from craft_protos import files
    from craft_protos.reasons import CraftError

    from craft_cli import errors
    from craft_cli.interrupts import Interrupted

    as_json = "--json" in argv
    try:
        _tell_unknown_variables()
        return _run(argv)
    except CraftError as error:
        return errors.report(error, as_json)
    except BrokenPipeError:
        return errors.quit_quietly()
    except (KeyboardInterrupt, Interrupted):
        return errors.EXIT_INTERRUPTED
    except OSError as error:  # what a system refuses is no bug
        return errors.report(files.trouble(error), as_json)
    except Exception as error:  # the outermost loop: a bug, told in one line
        return errors.report_crash(error, as_json)


def _tell_unknown_variables() -> None:
    from craft_protos import config

    from craft_cli import errors

    if any(name.startswith("CRAFT_") for name in os.environ):
        for complaint in config.complaints():
            errors.say(f"craft: {complaint}")


def _run(argv: list[str]) -> int:
    import typer

    from craft_cli import app, errors, shells

    if asked := shells.named(argv):
        shells.complete(*asked)
        return 0
    command = app.command()
    try:
        if "_CRAFT_COMPLETE" in os.environ:  # the shell asks for completions
            command.main(prog_name="craft")
        with command.make_context("craft", list(argv)) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except SystemExit as end:  # completion's scripts
        return int(end.code or 0)
    except typer.TyperException as error:
        return errors.report(errors.usage(error), "--json" in argv)
    return 0


def _end(code: int, as_json: bool) -> int:
    """Flush; what cannot be written is an error like any other."""
    from craft_protos import files

    from craft_cli import errors

    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        return errors.quit_quietly()
    except OSError as error:
        errors.silence_stdout()
        return errors.report(files.unwritable("stdout", error), as_json)
    return code


if __name__ == "__main__":
    main()
