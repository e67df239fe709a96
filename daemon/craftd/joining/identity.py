"""What makes this a known worker: the front's authority, a key of its own, and the certificate that it joined for."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

from craft_protos.frames import BadFrame
from craft_protos.reasons import REASONS, CraftError
from craft_protos.remote_pb2 import AskAuthority, Certificate, FromRemote, Join, Refused, Renew, ToRemote
from craft_protos.version import __version__
from cryptography import x509

from craftd.workers.remote import certificates
from craftd.workers.remote import line as lines
from craftd.workers.remote.line import Line

_ANSWER_S = 20.0
_LARGEST_AUTHORITY = 16 << 10


@dataclass(frozen=True)
class Identity:
    """Lies in `folder`, which nobody else may read."""

    folder: Path

    @property
    def is_there(self) -> bool:
        """It has joined before."""
        return self._certificate_file.exists()

    @property
    def name(self) -> str:
        """That the front gave it."""
        return (self.folder / "name").read_text(encoding="utf-8")

    @property
    def fingerprint(self) -> str:
        """Of the front's authority."""
        return certificates.fingerprint_of(self._authority)

    @property
    def is_due(self) -> bool:
        """Its certificate should be renewed."""
        return certificates.is_due(self._certificate)

    @property
    def is_over(self) -> bool:
        return certificates.is_over(self._certificate)

    def context(self) -> ssl.SSLContext:
        """Raises OSError."""
        return certificates.worker_context(self._authority, self._certificate_file, self._key_file)

    def renewal(self) -> Renew:
        """A request for the next certificate, for the same key."""
        return Renew(request=certificates.request_for(certificates.load_key(self._key_file.read_bytes())))

    def keep(self, told: Certificate) -> None:
        """From now on that certificate is shown. Raises BadFrame for one that is not for this key."""
        try:
            read = x509.load_der_x509_certificate(told.certificate)
            is_own = read.public_key() == certificates.load_key(self._key_file.read_bytes()).public_key()
        except ValueError as exc:
            raise BadFrame("a certificate that cannot be read") from exc
        if not is_own:
            raise BadFrame("a certificate for another key")
        pem = ssl.DER_cert_to_PEM_cert(told.certificate).encode()
        certificates.write_privately(self._certificate_file, pem)

    async def join(self, address: str, fingerprint: str, token: str) -> None:
        """Spend the invitation. Raises WORKER_REFUSED, DAEMON_UNREACHABLE, OSError."""
        authority = await self._authority_of(address, fingerprint)
        key = certificates.new_key()
        line = await connect(address, certificates.worker_context(authority))
        asked = Join(token=token, request=certificates.request_for(key), version=__version__, frames=lines.VERSION)
        line.send(FromRemote(join=asked))
        told = await _answer(line, "certificate")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        certificates.write_privately(self._key_file, certificates.key_pem(key))
        certificates.write_privately(self.folder / "authority.der", authority)
        certificates.write_privately(self.folder / "name", told.certificate.name[:64].encode())
        self.keep(told.certificate)

    async def _authority_of(self, address: str, fingerprint: str) -> bytes:
        """Asked of whoever answers, and believed where the invitation's fingerprint fits. Raises WORKER_REFUSED."""
        line = await connect(address, certificates.stranger_context(), is_known=False)
        line.send(FromRemote(ask_authority=AskAuthority()))
        told = (await _answer(line, "authority")).authority.certificate
        found = certificates.fingerprint_of(told)
        if found != fingerprint or len(told) > _LARGEST_AUTHORITY:
            message = f"{address} is not the daemon of the invitation: its fingerprint is {found}, not {fingerprint}"
            raise CraftError("WORKER_REFUSED", message, "see that the address is right; the token was not sent")
        return told

    @property
    def _authority(self) -> bytes:
        return (self.folder / "authority.der").read_bytes()

    @property
    def _certificate(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self._certificate_file.read_text(encoding="ascii"))

    @property
    def _certificate_file(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def _key_file(self) -> Path:
        return self.folder / "key.pem"


async def connect(address: str, context: ssl.SSLContext, *, is_known: bool = True) -> Line[ToRemote]:
    """Raises DAEMON_UNREACHABLE; WORKER_REFUSED where that is another front than the one that is known."""
    host, _, port = address.rpartition(":")
    name = certificates.FRONT_NAME if is_known else ""
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(
                host.strip("[]"), int(port), ssl=context, server_hostname=name, limit=1 << 20
            )
    except ssl.SSLCertVerificationError as exc:
        message = f"{address} is not the daemon that was joined: {exc.verify_message}"
        raise CraftError("WORKER_REFUSED", message, "see that the address is right, or join anew") from exc
    except (OSError, TimeoutError) as exc:
        why = "no answer" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
        hint = "see that the daemon runs, and its worker.listen"
        raise CraftError("DAEMON_UNREACHABLE", f"{address}: {why}", hint) from exc
    return Line(reader, writer, ToRemote)


def error_of(refused: Refused) -> CraftError:
    """What the front says, as an error of this machine."""
    reason = refused.reason if refused.reason in REASONS else "WORKER_REFUSED"
    said, hint = (" ".join(text[:500].split()) for text in (refused.message, refused.hint))
    return CraftError(reason, said, hint)


async def _answer(line: Line[ToRemote], kind: str) -> ToRemote:
    """The one frame that is waited for. Raises WORKER_REFUSED, DAEMON_UNREACHABLE."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            told = await line.receive()
    except (TimeoutError, BadFrame) as exc:
        raise CraftError("DAEMON_UNREACHABLE", f"no answer: {exc or 'too late'}", "try again") from exc
    finally:
        line.close("asked")
    if told is None:
        raise CraftError("DAEMON_UNREACHABLE", f"no answer: {line.closed}", "try again")
    if told.WhichOneof("frame") == "refused":
        raise error_of(told.refused)
    if told.WhichOneof("frame") != kind:
        raise CraftError("DAEMON_UNREACHABLE", "what answers there is no daemon of craft's", "see the address")
    return told
