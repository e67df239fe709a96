"""What is wrong with a file, as a CraftError with one line and a hint.

CraftError
    UNSAFE_PATH        it leads out of its folder, or is no regular file
    UNSAFE_FORMAT      it is a pickle
    UNSAFE_CONFIG      it asks for code or files from elsewhere
    UNSUPPORTED_MODEL  it asks for what craft cannot do
    UNSUPPORTED_LORA   it is no LoRA, or of a kind that craft does not apply
    NOT_FINITE         one of its tensors holds NaN or infinity
    CORRUPT_FILE       it is not what its name says: what was expected, what was found
"""

from __future__ import annotations

from craft_protos.reasons import CraftError

_LONGEST_NAME = 120
_AGAIN = "download it again"


def shown(text: str) -> str:
    """A stranger's text, fit for a terminal: quoted, without control characters, short."""
    cut = text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 3]}..."
    return ascii(cut) if not cut.isprintable() else repr(cut)


def corrupt(name: str, expected: str, found: str) -> CraftError:
    return CraftError("CORRUPT_FILE", f"{shown(name)}: expected {expected}, found {found}", _AGAIN)


def unsafe_path(name: str, why: str) -> CraftError:
    return CraftError(
        "UNSAFE_PATH", f"{shown(name)} {why}", "use a model of regular files that lie inside its own folder"
    )


def unsafe_config(name: str, why: str) -> CraftError:
    return CraftError(
        "UNSAFE_CONFIG", f"{shown(name)}: {why}", "craft runs no code of a model's own; use another model"
    )


def unsupported(name: str, why: str) -> CraftError:
    return CraftError(
        "UNSUPPORTED_MODEL", f"{shown(name)}: {why}", "`craft models list` shows which models can be used"
    )
