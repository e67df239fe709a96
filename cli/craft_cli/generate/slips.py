"""Prompts of the command line that were meant as something else: a file's name, or options inside the quotes."""

from __future__ import annotations

import re
from pathlib import Path

from craft_protos.reasons import CraftError

from craft_cli import errors

_LIKE = "after a picture that it made: craft generate --like FILE"
_BATCH = "prompts are read from a file with --batch FILE"
_PICTURE = "to begin from it: -i FILE and a prompt; to draw after it: --like FILE"
_MODEL = "to draw with it: craft run -m FILE PROMPT"
_MEANT = {
    **dict.fromkeys((".txt", ".csv", ".jsonl"), _BATCH),
    ".json": f"{_BATCH}; a workflow is not run, {_LIKE}",
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp"), _PICTURE),
    **dict.fromkeys((".safetensors", ".gguf", ".ckpt"), _MODEL),
}
_OPTION = re.compile(r"(?:^|\s)--([a-z]{1,20})(?=\s|$)")


def look_at(prompt: str) -> None:
    """Says what stands in a prompt and is no word of it. Raises USAGE where it is the name of a file that is here."""
    meant = _MEANT.get(Path(prompt).suffix.lower())
    if meant and _is_file(prompt):
        raise CraftError("USAGE", f"the prompt is the name of a file, {errors.one_line(prompt)}", meant)
    if option := _OPTION.search(prompt):
        errors.say(f"craft: --{option[1]} is inside the prompt, and so a word of it; options stand outside the quotes")


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # too long a name, or not for us
        return False
