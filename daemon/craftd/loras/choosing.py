"""Which file of a repository is the LoRA."""

from __future__ import annotations

from craft_protos.reasons import CraftError

from craftd.hub.repository import Listing
from craftd.loras import peft

_USUAL = ("pytorch_lora_weights.safetensors", peft.WEIGHTS)
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def choose(listing: Listing, file: str) -> str:
    """The named one, the usual one, or the only one. Raises UNKNOWN_REPOSITORY, UNSAFE_FORMAT, BAD_DATA."""
    repository, names = listing.address.repository, [one.path for one in listing.files]
    if file:
        if file not in names:
            raise _no_file(repository, file, names)
        return file
    found = [name for name in names if name.endswith(".safetensors")]
    usual = next((name for name in _USUAL if name in found), "")
    if usual or len(found) == 1:
        return usual or found[0]
    if found:
        shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        raise CraftError(
            "BAD_DATA", f"{repository} has {len(found)} LoRAs: {shown}", f"say which: {repository}:{found[0]}"
        )
    if any(name.endswith(_PICKLES) for name in names):
        raise CraftError(
            "UNSAFE_FORMAT", f"{repository} has pickle files only, which could run code", "look for it as .safetensors"
        )
    raise CraftError(
        "UNKNOWN_REPOSITORY", f"{repository} has no .safetensors file", "see which files it has on its page"
    )


def choose_all(listing: Listing, file: str) -> list[str]:
    """The LoRA's file, and what else of the repository is needed to know how strong it is. Raises as `choose`."""
    name = choose(listing, file)
    return [name, *peft.name_beside(name, [one.path for one in listing.files])]


def _no_file(repository: str, file: str, names: list[str]) -> CraftError:
    found = [name for name in names if name.endswith(".safetensors")]
    hint = f"it has {', '.join(found[:5])}" if found else "it has no .safetensors file"
    return CraftError("UNKNOWN_REPOSITORY", f"{repository} has no file {file[:200]!r}", hint)
