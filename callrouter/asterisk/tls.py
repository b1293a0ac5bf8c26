"""SIP over TLS: our certificate, and by which authorities those of providers are checked."""

from __future__ import annotations

import socket
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from callrouter.config import Settings
from callrouter.errors import ConfigError
from callrouter.files import replace_file

if TYPE_CHECKING:
    from cryptography import x509

SELF_SIGNED_DAYS = 3650
_SYSTEM_CAS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the TLS transport. ``authorities`` None: certificates of providers are not checked."""

    certificate: Path
    key: Path
    authorities: Path | None


def tls_files(settings: Settings) -> TlsFiles:
    """The files for the TLS transport; a self-signed certificate is made when none is configured and there is none.

    :raises ConfigError: a file is missing, is no PEM, or the key is another certificate's or readable by everybody
    """
    if bool(settings.sip_tls_certificate) != bool(settings.sip_tls_key):
        raise ConfigError("sip_tls_certificate and sip_tls_key belong together", hint="set both, or neither")
    if settings.sip_tls_certificate:
        certificate, key = _path(settings, settings.sip_tls_certificate), _path(settings, settings.sip_tls_key)
    else:
        certificate, key = ensure_self_signed(settings)
    _check_pair(certificate, key)
    return TlsFiles(certificate, key, _authorities(settings) if settings.sip_tls_verify else None)


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file: the one that is shown.

    :raises ConfigError: it is missing, or no certificate
    """
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}", hint="set sip_tls_certificate") from exc
    except ValueError as exc:
        raise ConfigError(f"{path} holds no certificate in PEM", hint="set sip_tls_certificate") from exc


def ensure_self_signed(settings: Settings) -> tuple[Path, Path]:
    """A certificate of our own and its key in ``home/tls``, 0600; made once."""
    directory = settings.home_dir / "tls"
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    if not (certificate.exists() and key.exists()):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        made, private = self_signed(_names(settings))
        # The certificate last: with it the pair is complete.
        replace_file(key, private)
        replace_file(certificate, made)
    return certificate, key


def self_signed(names: Sequence[str]) -> tuple[bytes, bytes]:
    """A certificate and its key, PEM.

    :param names: host names and addresses it stands for
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    others = [x509.IPAddress(ip_address(name)) if _is_address(name) else x509.DNSName(name) for name in names]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName(others), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


def _names(settings: Settings) -> list[str]:
    """What others know us by: host name and addresses."""
    name = socket.getfqdn()
    addresses = [settings.sip_external_address, settings.sip_bind]
    found = [name] if name.isascii() and "." in name.strip(".") and not _is_address(name) else []
    found += [each for each in addresses if each and not ip_address(each).is_unspecified]
    return found or ["callrouter"]


def _check_pair(certificate: Path, key: Path) -> None:
    read_certificate(certificate)
    try:
        if stat.S_IMODE(key.stat().st_mode) & 0o007:
            raise ConfigError(f"{key} can be read by everybody", hint=f"chmod o= {key}")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as exc:
        raise ConfigError(
            f"{key} is not the key of {certificate}", hint="set sip_tls_certificate and sip_tls_key to a pair"
        ) from exc
    except OSError as exc:
        raise ConfigError(f"{key}: {exc.strerror}", hint="set sip_tls_key") from exc


def _no_password() -> str:
    """Asterisk cannot ask for a password either."""
    return ""


def _authorities(settings: Settings) -> Path:
    if settings.sip_tls_ca:
        path = _path(settings, settings.sip_tls_ca)
        read_certificate(path)
        return path
    for name in (*_SYSTEM_CAS, ssl.get_default_verify_paths().cafile or ""):
        if name and Path(name).is_file():
            return Path(name)
    raise ConfigError(
        "this machine has no list of certificate authorities to check providers by",
        hint="apt-get install ca-certificates, or set sip_tls_ca",
    )


def _path(settings: Settings, text: str) -> Path:
    return settings.home_dir / Path(text).expanduser()


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
