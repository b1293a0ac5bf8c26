"""Passwords: made here, kept in ``home/secrets`` (directory 0700, files 0600), shown to nobody."""

from __future__ import annotations

import secrets as _random
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from callrouter.asterisk.doors import refuse_weak
from callrouter.config import Settings
from callrouter.core.model import Trunk
from callrouter.errors import ConfigError, InputError
from callrouter.files import replace_file

SECRET_BYTES = 32
WEBHOOK_SECRET = "webhook-secret"


class Secret(str):
    """Text that does not show itself: ``repr`` and formatting are masked, ``reveal()`` gives the text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def reveal(self) -> str:
        return str.__str__(self)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a rendered configuration needs to know."""

    ari: Secret
    ami: Secret
    trunks: Mapping[str, Secret] = field(default_factory=dict)
    """By trunk name; only trunks that have a user name."""


def trunk_secret_name(trunk: str) -> str:
    """File name, in the secrets directory, of a trunk's password."""
    return f"trunk-{trunk}"


def read_secret(directory: Path, name: str) -> Secret:
    """A secret that must exist.

    :raises ConfigError: it is missing, empty, readable by others, or holds a line break
    """
    path = directory / name
    try:
        _refuse_if_open(directory, "0700")
        _refuse_if_open(path, "0600")
        text = path.read_text("utf-8").rstrip("\r\n")
    except FileNotFoundError as exc:
        raise ConfigError(f"{path} is missing", hint=_how_to_make(name)) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}", hint="check its owner and contents") from exc
    return Secret(_checked(text, str(path)))


def ensure_secret(directory: Path, name: str) -> Secret:
    """A secret, made from 32 random bytes when there is none yet."""
    if not (directory / name).exists():
        write_secret(directory, name, _random.token_urlsafe(SECRET_BYTES))
    return read_secret(directory, name)


def renew_secret(directory: Path, name: str) -> Secret:
    """A new secret in the place of one of ours."""
    write_secret(directory, name, _random.token_urlsafe(SECRET_BYTES))
    return read_secret(directory, name)


def write_secret(directory: Path, name: str, text: str) -> Path:
    """Store a secret, all or nothing; an older one of that name is replaced.

    :raises InputError: it is empty, or has characters that a configuration file cannot hold
    """
    try:
        _checked(text, "the password")
    except ConfigError as exc:
        raise InputError(exc.message, hint=exc.hint) from exc
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    path = directory / name
    replace_file(path, f"{text}\n".encode())
    return path


def load_secrets(settings: Settings, trunks: Iterable[Trunk] = ()) -> Secrets:
    """All secrets a configuration needs: ours are made when missing, a trunk's must have been stored.

    :raises ConfigError: a trunk's password is missing, a secret is readable by others, or one of ours is weak
    """
    directory = settings.secrets_dir
    return Secrets(
        ari=_strong(directory, "ari-password"),
        ami=_strong(directory, "ami-password"),
        trunks={t.name: read_secret(directory, trunk_secret_name(t.name)) for t in trunks if t.username},
    )


def webhook_secret(settings: Settings) -> Secret:
    """What questions to web services are signed with; made when missing.

    :raises ConfigError: it is readable by others, or weak
    """
    return _strong(settings.secrets_dir, WEBHOOK_SECRET)


def _strong(directory: Path, name: str) -> Secret:
    secret = ensure_secret(directory, name)
    refuse_weak(name, secret.reveal(), directory / name)
    return secret


def _checked(text: str, where: str) -> str:
    if not text:
        raise ConfigError(f"{where} is empty", hint="store a password in it")
    if text != text.strip() or not text.isprintable():
        raise ConfigError(
            f"{where} begins or ends with a space, or has control characters",
            hint="Asterisk cannot read such a password",
        )
    if len(text) > 128:
        raise ConfigError(f"{where} is longer than 128 characters", hint="Asterisk cuts such a password short")
    return text


def _refuse_if_open(path: Path, mode: str) -> None:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"{path} can be read by other users", hint=f"chmod {mode[1:]} {path}")


def _how_to_make(name: str) -> str:
    if name.startswith("trunk-"):
        return f"callrouter trunk edit {name.removeprefix('trunk-')} --password"
    return "callrouter init"
