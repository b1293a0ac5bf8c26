"""Asterisk's configuration, rendered from the settings and the trunks. Validated before Asterisk sees it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from callrouter.asterisk.ami_events import SECURITY_EVENTS
from callrouter.asterisk.cel import cel_mapping
from callrouter.asterisk.doors import refuse_open_doors
from callrouter.asterisk.ledger import ledger_fields, ledger_mapping
from callrouter.asterisk.modules import module_groups
from callrouter.asterisk.secrets import Secret, Secrets
from callrouter.asterisk.tls import tls_files
from callrouter.asterisk.trunk_values import SIMULATOR, checked_codecs, is_address, trunk_values
from callrouter.asterisk.validate import validate
from callrouter.config import Settings
from callrouter.core.model import Trunk
from callrouter.errors import ConfigError
from callrouter.resources import resource_dir

if TYPE_CHECKING:  # loaded when there is something to render
    from jinja2 import Environment

Files = dict[str, str]
"""Relative path → text."""

FIXED_DIALPLANS = ("entry.conf", "talk.conf", "failsafe.conf", "prompt.conf")
EMPTY_FILES = (
    "acl.conf", "ccss.conf", "geolocation.conf", "pjproject.conf", "statsd.conf", "udptl.conf",
    "websocket_client.conf",
)  # fmt: skip

FAILSAFE_FILE = "callrouter-failsafe.conf"
SPOOL_SIGN = ".callrouter-spool.conf"
"""Stands in the recording spool; without it the dialplan takes the store for absent and does not record."""
SOCKET_PATH_MAX = 107
"""Bytes of a UNIX socket's path (sun_path, unix(7))."""

AMI_EVENTS = (
    "FullyBooted", "Shutdown", "Reload", "Registry", "PeerStatus", "ContactStatus", "Newchannel", "Hangup", "Hold",
    "Unhold", "UserEvent", *sorted(SECURITY_EVENTS),
)  # fmt: skip
"""AMI events that reach us; all others stay in Asterisk."""


_PATH = re.compile(r"[A-Za-z0-9/._+@=~-]{1,400}\Z")
_APP_USER = re.compile(r"[A-Za-z0-9._-]{1,40}\Z")


class Install(Protocol):
    """What rendering needs to know of an Asterisk; ``callrouter.asterisk.install.AsteriskInstall`` is one."""

    @property
    def modules_dir(self) -> Path: ...
    @property
    def data_dir(self) -> Path: ...
    def has_module(self, name: str, /) -> bool: ...


class _Checked(str):
    """Text that has been escaped for its place and may pass as it is."""

    __slots__ = ()


def render(
    settings: Settings, install: Install, trunks: Sequence[Trunk], secrets: Secrets, *, etc_dir: Path | None = None
) -> Files:
    """All files of Asterisk's configuration directory.

    :param etc_dir: where they will stand; None: ``settings.asterisk_etc_dir``
    :raises ConfigError: a setting or a trunk holds a value that cannot stand in a configuration file
    """
    values = template_values(settings, install, trunks, secrets)
    values |= {"etc_dir": _path("asterisk_etc", etc_dir or settings.asterisk_etc_dir)}
    files = {
        name: render_template(name, values)
        for name in (
            "asterisk.conf", "modules.conf", "logger.conf", "http.conf", "ari.conf", "manager.conf", "rtp.conf",
            "cdr.conf", "cdr_custom.conf", "cel.conf", "cel_custom.conf", "musiconhold.conf", "indications.conf",
            "pjsip.conf", "extensions.conf", "cr-trunks.conf", "features.conf",
        )
    }  # fmt: skip
    for name in FIXED_DIALPLANS:
        files[name] = fixed_dialplan(name)
    for name in EMPTY_FILES:
        files[name] = (
            "; Rendered by callrouter: defaults. Without this file Asterisk reports an error at every start.\n"
        )
    return files


def template_values(
    settings: Settings, install: Install, trunks: Sequence[Trunk], secrets: Secrets, *, coexist: bool = False
) -> dict[str, Any]:
    """What the templates may use, every value checked."""
    check_settings(settings)
    lines = [trunk_values(trunk, settings, secrets) for trunk in trunks]
    names = [line["name"] for line in lines]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two trunks are called {name!r}", hint=f"callrouter trunk show {name}")
    fields = ("name", "to_header", "patterns", "secure_only", "trust_identity")
    doors = [{key: t[key] for key in fields} for t in lines]
    if settings.simulator:
        plain = dict.fromkeys(fields, False)
        doors.insert(0, plain | {"name": SIMULATOR, "patterns": ["_[+0-9]!"]})
    tls = None if coexist or all(t["transport"] != "tls" for t in lines) else _tls(settings)
    bind = f"[{settings.sip_bind}]" if ":" in settings.sip_bind else settings.sip_bind
    any_address = ip_address(settings.sip_bind).is_unspecified
    return {
        "settings": settings,
        "secrets": secrets,
        "modules_dir": _path("Asterisk's module directory", install.modules_dir),
        "data_dir": _path("Asterisk's data directory", install.data_dir),
        "base_dir": _path("home", settings.asterisk_dir),
        "moh_dir": _path("Asterisk's data directory", install.data_dir / "moh"),
        "spool_dir": _path("home", settings.recording_spool),
        "spool_sign": SPOOL_SIGN,
        "failsafe_file": _path("home", settings.failsafe_dir / FAILSAFE_FILE),
        "language": _sound_language(install.data_dir),
        "console_levels": "error",
        "module_groups": module_groups(install.has_module, srtp=any(t["srtp"] for t in lines)),
        "ami_events": AMI_EVENTS,
        "fast_ledger": install.has_module("res_cdrel_custom"),
        "ledger_mapping": _Checked(ledger_mapping()),
        "ledger_fields": _Checked(ledger_fields()),
        "cel_mapping": _Checked(cel_mapping()),
        "has_broadcast": install.has_module("app_stasis_broadcast"),
        "ledger_file": "callrouter.csv",
        "add_globals": False,
        "add_mappings": False,
        "protocols": {
            protocol: _Checked(f"{bind}:{settings.sip_tls_port if protocol == 'tls' else settings.sip_port}")
            for protocol in ("udp", "tcp", *(["tls"] if tls else []))
        },
        "tls": tls,
        "transports": not coexist,
        "common": _Checked(_common(None if any_address or coexist else settings.sip_bind)),
        "trunks": lines,
        "doors": doors,
    }


def fixed_dialplan(name: str) -> str:
    """A file of ``dialplans/``, as it stands."""
    return (resource_dir("dialplans") / name).read_text("utf-8")


def render_template(name: str, values: Mapping[str, Any]) -> str:
    return _environment().get_template(name + ".j2").render(**values)


def write_config(files: Mapping[str, str], etc_dir: Path) -> bool:
    """Put a configuration in place: all of it, validated, or none.

    What stood there before is kept beside it, as ``etc.good``. Directory 0700, files 0600.

    :return: whether anything changed
    :raises ConfigError: the files do not hold together; nothing was touched
    """
    validate(files)
    if _current(etc_dir) == dict(files):
        return False
    etc_dir.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = Path(tempfile.mkdtemp(prefix=f".{etc_dir.name}.", dir=etc_dir.parent))
    good = etc_dir.with_name(etc_dir.name + ".good")
    try:
        for name, text in files.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        if etc_dir.exists():
            # A crash between the two renames leaves etc.good, and the next call writes etc again.
            shutil.rmtree(good, ignore_errors=True)
            etc_dir.rename(good)
        fresh.rename(etc_dir)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        if not etc_dir.exists() and good.exists():
            good.rename(etc_dir)
        raise
    return True


def restore_good(etc_dir: Path) -> bool:
    """Go back to the configuration before the last change. False when none was kept."""
    good = etc_dir.with_name(etc_dir.name + ".good")
    if not good.exists():
        return False
    refused = etc_dir.with_name(etc_dir.name + ".refused")
    shutil.rmtree(refused, ignore_errors=True)
    if etc_dir.exists():
        etc_dir.rename(refused)
    shutil.copytree(good, etc_dir)
    return True


def make_directories(settings: Settings) -> None:
    """The directories that Asterisk writes to, 0700."""
    base = settings.asterisk_dir
    for path in (
        settings.home_dir, base, base / "log", base / "run", base / "db", base / "spool",
        base / "log" / "cdr-custom", base / "log" / "cel-custom",
        settings.recording_spool, settings.failsafe_dir, settings.prompts_dir, settings.ledger_path.parent,
    ):  # fmt: skip
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    sign = settings.recording_spool / SPOOL_SIGN
    if not sign.exists():
        sign.write_text(
            "; The recording spool of callrouter. Without this file calls go on unrecorded.\n[spool]\nready = yes\n"
        )


def check_settings(settings: Settings) -> None:
    """
    :raises ConfigError: a setting that would not survive in a configuration file
    """
    for name in ("sip_bind", "ari_host", "ami_host", "simulator_address"):
        try:
            ip_address(getattr(settings, name))
        except ValueError as exc:
            raise ConfigError(f"{name}: {getattr(settings, name)!r} is no IP address", hint="write an address") from exc
    refuse_open_doors(settings)
    if settings.simulator and not ip_address(settings.simulator_address).is_loopback:
        raise ConfigError(
            f"simulator_address: {settings.simulator_address} is not a loopback address",
            hint="the simulated carrier may call only from this machine",
        )
    if settings.sip_external_address and not is_address(settings.sip_external_address):
        raise ConfigError(f"sip_external_address: {settings.sip_external_address!r} is no IP address")
    if settings.rtp_end - settings.rtp_start < 3:
        raise ConfigError("rtp_end must be above rtp_start", hint="each call takes four ports")
    for name in ("ari_user", "ami_user"):
        if not _APP_USER.match(getattr(settings, name)) or getattr(settings, name) == "general":
            raise ConfigError(f"{name}: {getattr(settings, name)!r} is no user name", hint="letters, digits, . _ -")
    checked_codecs("codecs", settings.codecs.split(","))
    socket = os.fsencode(settings.asterisk_dir / "run" / "asterisk.ctl")
    if len(socket) > SOCKET_PATH_MAX:
        raise ConfigError(
            f"home: {settings.home_dir} is {len(socket) - SOCKET_PATH_MAX} characters too long for Asterisk's socket",
            hint="choose a shorter home (CALLROUTER_HOME)",
        )


def _common(media_address: str | None) -> str:
    lines = [
        "disallow = all",
        "identify_by = ip",
        "direct_media = no",
        "rtp_symmetric = yes",
        "force_rport = yes",
        "rewrite_contact = yes",
        "send_pai = yes",
        "trust_id_outbound = yes",
        # A connected-line update would re-INVITE at every bridging.
        "send_connected_line = no",
        "allow_subscribe = no",
        "allow_transfer = no",
        "dtmf_mode = rfc4733",
        "timers = yes",
        "rtp_timeout = 120",
        "rtp_timeout_hold = 7200",
        "language = en",
    ]
    if media_address:
        lines += [f"media_address = {media_address}", "bind_rtp_to_media_address = yes"]
    return "\n".join(lines)


def _tls(settings: Settings) -> dict[str, str]:
    if settings.sip_tls_port == settings.sip_port:
        raise ConfigError(f"sip_tls_port and sip_port are both {settings.sip_port}", hint="TLS needs a port of its own")
    files = tls_files(settings)
    return {
        "certificate": _path("sip_tls_certificate", files.certificate),
        "key": _path("sip_tls_key", files.key),
        "authorities": _path("sip_tls_ca", files.authorities) if files.authorities else "",
    }


def _path(what: str, path: Path) -> str:
    if not _PATH.match(str(path)):
        raise ConfigError(
            f"{what}: {str(path)!r} has characters that Asterisk's dialplan would take as its own",
            hint="use letters, digits and / . _ + @ = ~ - only",
        )
    return str(path)


def _sound_language(data_dir: Path) -> str:
    """Asterisk's own English prompts; Debian names the directory after the voice."""
    sounds = data_dir / "sounds"
    if not (sounds / "en").exists() and sounds.is_dir():
        for path in sorted(sounds.glob("en*")):
            if re.fullmatch(r"[A-Za-z_]{2,30}", path.name):
                return path.name
    return "en"


def _current(etc_dir: Path) -> dict[str, str] | None:
    if not etc_dir.is_dir():
        return None
    try:
        return {str(p.relative_to(etc_dir)): p.read_text("utf-8") for p in etc_dir.rglob("*") if p.is_file()}
    except (OSError, UnicodeDecodeError):
        return None


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(resource_dir("asterisk-conf")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - not HTML; _finalize refuses whatever could end a line or open a section
        finalize=_finalize,
    )
    environment.filters["secret"] = lambda value: _Checked(value.reveal().replace(";", "\\;"))
    environment.filters["uri"] = lambda value: _Checked(_finalize(value.replace(";", "")) and value.replace(";", "\\;"))
    return environment


def _finalize(value: Any) -> Any:
    """The last gate before text reaches a file: whatever a template inserts stays within its line and its value."""
    if isinstance(value, _Checked) or not isinstance(value, str):
        return value
    if isinstance(value, Secret):
        raise ConfigError("a template shows a secret without the secret filter")
    if not value.isprintable() or any(ch in value for ch in ';"`\\$') or value != value.strip():
        raise ConfigError(f"{value!r} cannot stand in Asterisk's configuration", hint="remove the special characters")
    return value
