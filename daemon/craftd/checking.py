"""Whether a daemon could start with the configuration that there is: asked before one that runs is stopped for it."""

from __future__ import annotations

from pathlib import Path

from craft_protos.paths import Paths
from craft_protos.settings import Settings

from craftd.certificates import Certificate
from craftd.webhooks import signing
from craftd.webhooks.targets import Targets


def check(paths: Paths, settings: Settings) -> None:
    """Opens nothing and writes nothing. Raises what would end a new daemon: CONFIG_INVALID, STORE_NEWER, ..."""
    from craftd.keys import adminfile
    from craftd.rpc import tcp
    from craftd.store import schema

    tcp.configured(settings.daemon)
    if settings.http.enabled and (settings.http.tls_cert or settings.http.tls_key):
        Certificate("http", settings.http.tls_cert, settings.http.tls_key).load()
    if settings.keys.admin_key_file and Path(settings.keys.admin_key_file).exists():
        adminfile.load(Path(settings.keys.admin_key_file))
    if Targets(settings.webhooks.hosts).is_on and signing.file_of(settings.webhooks, paths).exists():
        signing.load(signing.file_of(settings.webhooks, paths))
    schema.check(paths.database)
