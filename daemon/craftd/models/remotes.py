"""Models on the hub: what a name means there, which files are taken, and where they lie once they are here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from craft_protos.reasons import CraftError

from craftd import modular
from craftd.architectures import controls
from craftd.hub.client import HubProcess
from craftd.hub.repository import Address, Fetched, Listing, RemoteFile
from craftd.models import cache_pruning, catalogue, choosing
from craftd.models.catalogue import Entry
from craftd.models.model import ModelSource

_CONFIGURATION = "config.json"
_OF_CONTROLS = (_CONFIGURATION, ".safetensors", ".safetensors.index.json")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


@dataclass(frozen=True)
class Remote:
    """On the hub: a diffusers folder, or one file of a repository."""

    address: Address
    file: str = ""


def by_short_name(remote: Remote) -> tuple[Remote, Entry | None]:
    """What the catalogue knows by that name, unless it is ORG/NAME."""
    entry = None if "/" in remote.address.repository else catalogue.find(remote.address.repository)
    if entry is None:
        return remote, None
    return Remote(replace(remote.address, repository=entry.repository), remote.file or entry.file), entry


async def listed(hub: HubProcess, address: Address) -> Listing:
    """Raises as HubProcess.list; with the nearest short names where the name could have been one."""
    try:
        return await hub.list(address)
    except CraftError as exc:
        is_name = "/" not in address.repository and not address.is_civitai
        if exc.reason in ("UNKNOWN_REPOSITORY", "HUB_UNREACHABLE") and is_name:
            raise catalogue.unknown(address.repository, exc) from exc
        raise


def settled(remote: Remote, listing: Listing) -> Remote:
    """Of Civitai: the one file that was listed."""
    if not remote.address.is_civitai:
        return remote
    return Remote(listing.address, remote.file or listing.files[0].path)


def free_bytes() -> int:
    """On the disk that downloads go to."""
    cache = cache_pruning.root()
    place = next(folder for folder in [cache, *cache.parents] if folder.is_dir())
    return shutil.disk_usage(place).free


def called(remote: Remote) -> str:
    return PurePosixPath(remote.file).stem if remote.file else remote.address.repository.rpartition("/")[2]


def place_of(name: str, source: str, remote: Remote, fetched: Fetched) -> ModelSource:
    if remote.file:
        return ModelSource(name, fetched.paths[remote.file], source, (), is_registered=True)
    return ModelSource(name, fetched.folder, source, tuple(fetched.paths), is_registered=True)


def index_of(path: Path) -> dict[str, object]:
    try:
        index = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise CraftError("CORRUPT_FILE", f"{choosing.INDEX}: no JSON ({exc})", "use another model") from exc
    if not isinstance(index, dict):
        raise CraftError("CORRUPT_FILE", f"{choosing.INDEX}: a JSON object was expected", "use another model")
    return index


def check_chosen(chosen: list[str], listing: Listing) -> None:
    for path in chosen:
        if path.lower().endswith(_PICKLES):
            raise CraftError(
                "UNSAFE_FORMAT",
                f"{listing.source}: {path} is a pickle file, which could run code",
                "use a .safetensors file of it",
            )


def index_in(listing: Listing) -> RemoteFile | None:
    """What says which parts a repository's model has."""
    return listing.file(choosing.INDEX) or listing.file(modular.INDEX)


def configuration_of(listing: Listing) -> RemoteFile:
    """Of a repository that holds one component alone. Raises UNSUPPORTED_MODEL where it holds none."""
    file = listing.file(_CONFIGURATION)
    if file is None or not any("/" not in one.path and one.path.endswith(".safetensors") for one in listing.files):
        raise no_folder(listing)
    return file


def of_control(listing: Listing, configuration: Mapping[str, object]) -> list[str]:
    """The files of a repository that is a control model. Raises UNSUPPORTED_MODEL for another component."""
    kind = str(configuration.get("_class_name", ""))[:100]
    is_known = any(one.network == kind for one in controls.KINDS)
    if not is_known and "ControlNet" in kind:
        raise CraftError("UNSUPPORTED_MODEL", f"{listing.source}: it is a {kind}; {controls.DRAWN_WITH}")
    if not is_known:
        raise no_folder(listing)
    root = [one.path for one in listing.files if "/" not in one.path and one.path.endswith(_OF_CONTROLS)]
    return choosing.of_part(root, listing.source)


def no_folder(listing: Listing) -> CraftError:
    names_here = [file.path for file in listing.files if "/" not in file.path]
    single = [name for name in names_here if name.endswith(".safetensors")]
    repository = listing.address.repository
    if single:
        hint = f"a checkpoint of one file is pulled by its name: craft models pull {repository}:{single[0]}"
    else:
        hint = "craft draws with diffusers folders and .safetensors checkpoints"
    return CraftError("UNSUPPORTED_MODEL", f"{listing.source} has no {choosing.INDEX}: it is no diffusers folder", hint)
