"""craft completion: the script that makes a shell complete craft's words."""

from __future__ import annotations

import typer

from craft_cli import shells
from craft_cli.parsing import leaf, new_app

app = new_app("Completion.")

_SHELL = typer.Argument(
    ..., metavar="SHELL", help="bash, zsh, fish or powershell.", autocompletion=lambda: list(shells.SHELLS)
)


@app.command(
    "completion",
    **leaf(
        "craft completion bash > ~/.local/share/bash-completion/completions/craft",
        "craft completion zsh > ~/.zfunc/_craft     (a folder of $fpath)",
        "craft completion fish > ~/.config/fish/completions/craft.fish",
        'eval "$(craft completion bash)"            (for this shell alone)',
    ),
)
def completion(shell: str = _SHELL) -> None:
    """Print a shell's completion script. Names and ids complete too, from the daemon where one runs.

    `craft --install-completion SHELL` puts it where the shell looks.
    """
    shells.print_script(shell, "craft completion")
