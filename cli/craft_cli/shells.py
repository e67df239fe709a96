"""`craft --show-completion zsh`: Typer's own options ask which shell they run in, and heed no name that is given."""

from __future__ import annotations

from craft_protos.reasons import CraftError

_OPTIONS = ("--show-completion", "--install-completion")
SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
_VARIABLE = "_CRAFT_COMPLETE"


def named(argv: list[str]) -> tuple[str, str] | None:
    """The option and the shell, where both are given: as two words, or as one with `=`."""
    match argv[0].split("=", 1) if len(argv) == 1 else argv:
        case [option, shell] if option in _OPTIONS:
            return option, shell
    return None


def complete(option: str, shell: str) -> None:
    """Print the script, or put it where the shell looks. Raises USAGE."""
    if option == "--show-completion":
        print_script(shell, option)
        return
    _require_known(shell, option)
    from typer import completion as typers

    from craft_cli import errors

    typers.completion_init()  # type: ignore[attr-defined]
    _, path = typers.install(shell=shell, prog_name="craft", complete_var=_VARIABLE)  # type: ignore[attr-defined]
    errors.say(f"craft: {shell} completes from its next start on: {path}")


def print_script(shell: str, asked: str) -> None:
    """`asked`: the words by which the user asked for it. Raises USAGE."""
    _require_known(shell, asked)
    from typer import completion as typers

    from craft_cli.generate import output

    typers.completion_init()  # type: ignore[attr-defined]
    output.line(typers.get_completion_script(prog_name="craft", complete_var=_VARIABLE, shell=shell))  # type: ignore[attr-defined]


def _require_known(shell: str, asked: str) -> None:
    if shell not in SHELLS:
        raise CraftError("USAGE", f"{asked}: no completion for {shell!r}", f"take {', '.join(SHELLS)}")
