"""The first key, from a file: for containers, where nobody is there to copy it."""

from __future__ import annotations

from pathlib import Path

from craft_protos import api_key
from craft_protos.api_key import Presented

from craftd import secretfile
from craftd.secretfile import SecretFile


def load(path: Path) -> Presented:
    """The key in the file; where there is none, a new one is written to it. Raises CONFIG_INVALID."""
    file = SecretFile("keys.admin_key_file", path)
    presented = api_key.parse(secretfile.load(file, lambda: api_key.new().text))
    if presented is None:
        raise file.bad("holds no key of craft's", "`craft keys create --owner admin --admin` prints one")
    return presented
