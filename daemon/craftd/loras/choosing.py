"""Which file of a repository is the LoRA."""

from __future__ import annotations

from craft_protos.reasons import CraftError

from craftd.hub.repository import Listing

_USUAL = "pytorch_lora_weights.safetensors"
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def choose(listing: Listing, file: str) -> str:
    """The named one, the usual one, or the only one. Raises UNKNOWN_REPOSITORY, UNSAFE_FORMAT, BAD_DATA."""
    repository, names = listing.address.repository, [one.path for one in listing.files]
    if file:
        if file not in names:
            raise _no_file(repository, file, names)
        return file
    found = [name for name in names if name.endswith(".safetensors")]
    if _USUAL in found or len(found) == 1:
        return _USUAL if _USUAL in found else found[0]
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


def _no_file(repository: str, file: str, names: list[str]) -> CraftError:
    found = [name for name in names if name.endswith(".safetensors")]
    hint = f"it has {', '.join(found[:5])}" if found else "it has no .safetensors file"
    return CraftError("UNKNOWN_REPOSITORY", f"{repository} has no file {file[:200]!r}", hint)
