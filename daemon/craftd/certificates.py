"""A face's certificate: PEM files of the configuration, checked at the start and read anew where they are renewed."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from craft_protos.reasons import CraftError

_log = logging.getLogger("craft.tls")


@dataclass(frozen=True)
class Pair:
    """The bytes of a certificate's file and of its key's."""

    certificate: bytes
    private_key: bytes


@dataclass
class Certificate:
    """The settings `tls_cert` and `tls_key` of a section. Whoever renews them replaces the files."""

    section: str
    cert: str
    key: str
    _seen: tuple[object, ...] = field(default=(), repr=False)

    def load(self) -> Pair:
        """Raises CONFIG_INVALID where the files are none, are no pair, or others can read the key."""
        for name, path in (("tls_cert", self.cert), ("tls_key", self.key)):
            if not path:
                raise self._bad(name, "is not set", f"TLS needs {self.section}.tls_cert and {self.section}.tls_key")
        try:
            seen = self._state()
            self._check_kept()
            self.context()
            pair = Pair(Path(self.cert).read_bytes(), Path(self.key).read_bytes())
        except ssl.SSLError as exc:
            why = f"{self.cert} and {self.key} are no pair of PEM files ({exc.reason or exc})"
            raise self._bad("tls_cert", why) from exc
        except OSError as exc:
            why = f"{self.cert} or {self.key} cannot be read ({exc.strerror})"
            raise self._bad("tls_cert", why) from exc
        self._seen = seen
        return pair

    def context(self) -> ssl.SSLContext:
        """For a server, from the files as they are. Raises OSError (an SSLError is one)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key, password=_no_password)
        return context

    def renewed(self) -> Pair | None:
        """Where the files have changed since they were read: the new ones. Half a renewal waits for its other half."""
        try:
            if self._state() == self._seen:
                return None
            pair = self.load()
        except (CraftError, OSError) as exc:
            _log.warning("the certificate of before is kept", extra={"section": self.section, "why": str(exc)})
            return None
        _log.info("the renewed certificate is used", extra={"section": self.section})
        return pair

    def _state(self) -> tuple[object, ...]:
        files = [Path(path).stat() for path in (self.cert, self.key)]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in files)

    def _check_kept(self) -> None:
        """Others must not read it; root may share its key with a group, as Debian's ssl-cert."""
        status = Path(self.key).stat()
        shared = 0o037 if status.st_uid == 0 else 0o077
        if status.st_mode & shared:
            why = f"{self.key} can be read or written by others (mode {status.st_mode & 0o777:o})"
            raise self._bad("tls_key", why, f"chmod 600 {self.key}")

    def _bad(self, name: str, why: str, hint: str = "see `craft config list`") -> CraftError:
        return CraftError("CONFIG_INVALID", f"{self.section}.{name}: {why}", hint)


def _no_password() -> str:
    """Nobody is there to type one."""
    return ""
