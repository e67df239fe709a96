"""The certificates of the worker port: an authority of its own, the front's, and those of the workers.

They are good for nothing else: who connects to any other port is not asked for one. A worker makes its key itself, and
sends a request (PKCS #10); a certificate lasts a week, and half of that later the next one is asked for over the line.
Who takes part is known by fingerprint and serial number, so no name of a host is in them.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from craft_protos.reasons import CraftError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

FRONT_NAME = "craft-front"  # in the front's certificate: workers go by it, and by no host's name
VALID = datetime.timedelta(days=7)
_AUTHORITY_VALID = datetime.timedelta(days=3650)
_SKEW = datetime.timedelta(hours=1)  # clocks of other machines are off
_LARGEST_REQUEST = 8 << 10
_PEM = serialization.Encoding.PEM
_DER = serialization.Encoding.DER


@dataclass(frozen=True)
class Issued:
    """A worker's certificate (DER), and its serial number in hexadecimal."""

    certificate: bytes
    serial: str


class Authority:
    """Signs the front's certificate and the workers'."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def open(cls, folder: Path) -> Authority:
        """The one that the folder has; made there where it has none. Raises OSError, CONFIG_INVALID."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key_file, file = folder / "authority.key", folder / "authority.pem"
        if not (key_file.exists() and file.exists()):
            made = cls._made()
            write_privately(key_file, key_pem(made._key))
            write_privately(file, made._certificate.public_bytes(_PEM))
        try:
            key = load_key(key_file.read_bytes())
            return cls(x509.load_pem_x509_certificate(file.read_bytes()), key)
        except ValueError as exc:
            hint = f"delete {folder}, and invite the workers anew"
            raise CraftError("CONFIG_INVALID", f"{folder}: no certificate authority can be read there", hint) from exc

    @classmethod
    def _made(cls) -> Authority:
        key, name = new_key(), _name("craft workers' authority")
        builder = _builder(name, name, key.public_key(), _AUTHORITY_VALID)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return cls(builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key)

    @property
    def der(self) -> bytes:
        return self._certificate.public_bytes(_DER)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.der)

    def issue(self, request: bytes, name: str) -> Issued:
        """A worker's certificate for the key of its request, valid from now. Raises BAD_DATA."""
        key = _key_of(request)
        certificate = self._sign(_name(name), key, ExtendedKeyUsageOID.CLIENT_AUTH)
        return Issued(certificate.public_bytes(_DER), f"{certificate.serial_number:x}")

    def front_context(self, folder: Path) -> ssl.SSLContext:
        """For the worker port: workers show their certificate, and who has none may ask to join."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0  # a line that is resumed would not show its certificate again
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self._certificate.public_bytes(_PEM).decode())
        self.renew_front(context, folder)
        return context

    def renew_front(self, context: ssl.SSLContext, folder: Path) -> None:
        """Give the port a new certificate, for the lines to come."""
        key = new_key()
        extra = x509.SubjectAlternativeName([x509.DNSName(FRONT_NAME)])
        certificate = self._sign(_name(FRONT_NAME), key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, extra)
        file = folder / "front.pem"
        write_privately(file, key_pem(key) + certificate.public_bytes(_PEM))
        context.load_cert_chain(file)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        purpose: x509.ObjectIdentifier,
        extra: x509.SubjectAlternativeName | None = None,
    ) -> x509.Certificate:
        builder = _builder(subject, self._certificate.subject, key, VALID)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(authority, critical=False)
        if extra is not None:
            builder = builder.add_extension(extra, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def worker_context(authority: bytes, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """For a line to the front of that authority (DER), and to nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(authority))
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def stranger_context() -> ssl.SSLContext:
    """For a line to a front whose authority is not known yet; nothing secret may be said on it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def fingerprint_of(certificate: bytes) -> str:
    """As an invitation says it, of DER."""
    return f"sha256:{hashlib.sha256(certificate).hexdigest()}"


def serial_of(certificate: bytes) -> str:
    return f"{x509.load_der_x509_certificate(certificate).serial_number:x}"


def is_due(certificate: bytes) -> bool:
    """Half of its time is over."""
    read = x509.load_der_x509_certificate(certificate)
    half = read.not_valid_before_utc + (read.not_valid_after_utc - read.not_valid_before_utc) / 2
    return _now() >= half


def is_over(certificate: bytes) -> bool:
    return _now() > x509.load_der_x509_certificate(certificate).not_valid_after_utc


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises ValueError."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("no elliptic curve's key")  # noqa: TRY004 - as for whatever else is no key
    return key


def request_for(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request for a certificate, DER. Its subject says nothing: the front gives the name."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name("worker"))
    return builder.sign(key, hashes.SHA256()).public_bytes(_DER)


def write_privately(file: Path, data: bytes) -> None:
    """Whole or not at all, readable by nobody else. Raises OSError."""
    half = file.with_name(f".{file.name}.tmp")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    half.replace(file)


def _key_of(request: bytes) -> ec.EllipticCurvePublicKey:
    """Of a stranger's request. Raises BAD_DATA."""
    refused = CraftError("BAD_DATA", "the request for a certificate is none", "join with `craft worker join`")
    if len(request) > _LARGEST_REQUEST:
        raise refused
    try:
        read = x509.load_der_x509_csr(request)
        key = read.public_key()
        is_signed = read.is_signature_valid
    except Exception as exc:  # what a stranger sends can fail in more ways than the library lists
        raise refused from exc
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1) or not is_signed:
        raise refused
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, valid: datetime.timedelta
) -> x509.CertificateBuilder:
    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + valid)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
