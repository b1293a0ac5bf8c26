"""Settings: one frozen value, one loader. Every field can stand in callrouter.toml or in the environment.

The environment variable of a field is CALLROUTER_ and its name in capitals (``CALLROUTER_SIP_PORT``); it wins over
the file.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from callrouter.errors import ConfigError

Port = Annotated[int, Meta(ge=1, le=65535)]


def _doc(text: str, **limits: Any) -> Meta:
    return Meta(description=text, **limits)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings of one callrouter. Relative paths are taken from ``home``."""

    home: Annotated[str, _doc("Directory of everything this installation writes.")] = "var"
    database_url: Annotated[
        str, _doc("SQLAlchemy URL. Empty: SQLite in home. PostgreSQL: postgresql+asyncpg://USER@HOST/DB")
    ] = ""
    recordings_dir: Annotated[str, _doc("Where finished recordings are kept, by date. Empty: home/recordings.")] = ""
    recording_format: Annotated[Literal["flac", "opus"], _doc("Finished recordings: lossless FLAC, or Opus.")] = "flac"
    recording_min_free_mb: Annotated[
        int, _doc("Megabytes that must be free on the recording disk; below it calls go on unrecorded.", ge=1)
    ] = 200
    failsafe_claim_ms: Annotated[
        int, _doc("Milliseconds the dialplan waits for the controller to claim a call.", ge=50, le=10000)
    ] = 500
    sip_bind: Annotated[str, _doc("Address SIP listens on. Loopback unless you open it to your trunk.")] = "127.0.0.1"
    sip_port: Annotated[Port, _doc("SIP port, UDP and TCP.")] = 5060
    sip_tls_port: Annotated[Port, _doc("SIP port over TLS; open only while a trunk uses TLS.")] = 5061
    sip_tls_certificate: Annotated[
        str, _doc("Our certificate for TLS, PEM, with those that signed it. Empty: a self-signed one in home/tls.")
    ] = ""
    sip_tls_key: Annotated[str, _doc("Private key of sip_tls_certificate, PEM, without a password.")] = ""
    sip_tls_ca: Annotated[
        str, _doc("Certificate authorities that a provider's certificate must be signed by, PEM. Empty: the system's.")
    ] = ""
    sip_tls_verify: Annotated[
        bool, _doc("Connect over TLS only to who shows a valid certificate in the name of the trunk's host.")
    ] = True
    sip_external_address: Annotated[str, _doc("Public address to announce when behind NAT; empty: none.")] = ""
    rtp_start: Annotated[Port, _doc("First UDP port for audio.")] = 10000
    rtp_end: Annotated[Port, _doc("Last UDP port for audio.")] = 20000
    codecs: Annotated[str, _doc("Codecs offered, best first, comma-separated.")] = "ulaw,alaw"
    ari_host: Annotated[str, _doc("Address of Asterisk's HTTP server (ARI).")] = "127.0.0.1"
    ari_port: Annotated[Port, _doc("Port of Asterisk's HTTP server (ARI).")] = 8088
    ari_user: Annotated[str, _doc("ARI user name; its password is in home/secrets/ari-password.")] = "callrouter"
    ari_app: Annotated[str, _doc("Stasis application name.", pattern="^[a-z][a-z0-9-]*$")] = "callrouter"
    ami_host: Annotated[str, _doc("Address of Asterisk's manager interface (AMI).")] = "127.0.0.1"
    ami_port: Annotated[Port, _doc("Port of Asterisk's manager interface (AMI).")] = 5038
    ami_user: Annotated[str, _doc("AMI user name; its password is in home/secrets/ami-password.")] = "callrouter"
    asterisk_prefix: Annotated[
        str, _doc("Root of an Asterisk extracted beside the project; empty: find one (system, then cache).")
    ] = ""
    asterisk_etc: Annotated[
        str, _doc("Asterisk's configuration directory, where callrouter does not run Asterisk; empty: home's own.")
    ] = ""
    asterisk_spool: Annotated[
        str, _doc("Asterisk's spool directory, where callrouter does not run Asterisk; empty: home's own.")
    ] = ""
    country: Annotated[
        str, _doc("Country assumed for numbers written without +; ISO 3166 alpha-2.", pattern="^[A-Z]{2}$")
    ] = "US"
    speech_voice: Annotated[str, _doc("espeak-ng voice for prompts given as text.")] = "en-us"
    speech_voices: Annotated[
        str,
        _doc(
            "Voices for prompts in other languages, like es=es-419,pt=pt-br; else the voice that is called so.",
            pattern="^([a-z]{2,3}(-[a-z0-9]+)*=[A-Za-z][A-Za-z0-9_+/-]*(, *|$))*$",
        ),
    ] = ""
    piper_voices: Annotated[
        str,
        _doc(
            "Languages that piper speaks in place of espeak-ng, and its models, like en=/srv/en_US-joe-medium.onnx.",
            pattern="^([a-z]{2,3}(-[a-z0-9]+)*=[^,=]+(, *|$))*$",
        ),
    ] = ""
    piper_program: Annotated[str, _doc("The piper program: a name on the PATH, or a path.")] = "piper"
    speech_rate: Annotated[int, _doc("Words per minute of prompts given as text.", ge=80, le=400)] = 150
    max_call_seconds: Annotated[int, _doc("A call is ended after this many seconds; 0: never.", ge=0)] = 14400
    simulator: Annotated[
        bool, _doc("Accept test calls from the built-in simulated carrier on loopback (callrouter call test).")
    ] = True
    simulator_address: Annotated[str, _doc("Loopback address the simulated carrier calls from.")] = "127.0.0.9"
    webhook_hosts: Annotated[
        str,
        _doc(
            "Web services that flows may ask, like crm.example.com, 127.0.0.1:9000; http:// before one: unencrypted.",
            pattern=r"^((https?://)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?( *, *|$))*$",
        ),
    ] = ""
    reconcile_at: Annotated[
        str,
        _doc(
            "HH:MM by this machine's clock: when calls are compared with Asterisk's records; empty: at start only.",
            pattern="^(([01][0-9]|2[0-3]):[0-5][0-9])?$",
        ),
    ] = "03:40"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _doc("Least severe log line written.")] = "info"
    log_format: Annotated[Literal["auto", "console", "json"], _doc("auto: console on a terminal, else JSON.")] = "auto"

    @property
    def language_voices(self) -> dict[str, str]:
        """``speech_voices`` by language."""
        pairs = (each.split("=") for each in self.speech_voices.replace(" ", "").split(",") if each)
        return dict(pairs)

    @property
    def piper_models(self) -> dict[str, Path]:
        """``piper_voices`` by language."""
        pairs = (each.strip().split("=") for each in self.piper_voices.split(",") if each.strip())
        return {language: Path(path.strip()).expanduser() for language, path in pairs}

    # -- places below home -------------------------------------------------------------------------------------------

    @property
    def home_dir(self) -> Path:
        return Path(self.home).expanduser().absolute()

    @property
    def database(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite+aiosqlite:///{self.home_dir / 'callrouter.db'}"

    @property
    def recordings(self) -> Path:
        """Finished recordings, kept by date (UTC)."""
        return self.home_dir / self.recordings_dir if self.recordings_dir else self.home_dir / "recordings"

    @property
    def recording_spool(self) -> Path:
        """Raw legs and messages as Asterisk writes them: its own recording directory, where ARI puts messages."""
        spool = Path(self.asterisk_spool) if self.asterisk_spool else self.asterisk_dir / "spool"
        return spool / "recording"

    @property
    def secrets_dir(self) -> Path:
        return self.home_dir / "secrets"

    @property
    def journal_dir(self) -> Path:
        return self.home_dir / "journal"

    @property
    def prompts_dir(self) -> Path:
        return self.home_dir / "prompts"

    @property
    def failsafe_dir(self) -> Path:
        return self.home_dir / "failsafe"

    @property
    def asterisk_dir(self) -> Path:
        return self.home_dir / "asterisk"

    @property
    def asterisk_etc_dir(self) -> Path:
        return Path(self.asterisk_etc) if self.asterisk_etc else self.asterisk_dir / "etc"

    @property
    def ledger_path(self) -> Path:
        """Asterisk's own CDR file: a ledger independent of this program."""
        return self.asterisk_dir / "log" / "cdr-custom" / "callrouter.csv"

    @property
    def channel_events_path(self) -> Path:
        """Asterisk's channel events (CEL): a second ledger, written as things happen."""
        return self.asterisk_dir / "log" / "cel-custom" / "callrouter.csv"


def load_settings(path: Path | None = None, environ: dict[str, str] | None = None, **overrides: Any) -> Settings:
    """Read settings: defaults < callrouter.toml < environment < overrides.

    :param path: the TOML file; None takes ``callrouter.toml`` in home when it exists
    :param environ: None takes the process environment
    :raises ConfigError: unknown setting, wrong type, unreadable file
    """
    env = dict(os.environ) if environ is None else environ
    home = str(overrides.get("home") or env.get("CALLROUTER_HOME") or Settings.__struct_defaults__[0])
    explicit = path is not None
    path = path or Path(env.get("CALLROUTER_CONFIG") or Path(home).expanduser() / "callrouter.toml")
    values: dict[str, Any] = {}
    if path.exists() or explicit:
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
            raise ConfigError(f"{path}: {exc}", hint="mend the file, or move it away to run on defaults") from exc
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    for name in set(values) - set(fields):
        raise ConfigError(f"{path}: there is no setting {name!r}", hint="callrouter config list shows them all")
    for name in fields:
        text = env.get("CALLROUTER_" + name.upper())
        if text is not None:
            values[name] = text
    values.setdefault("home", home)
    values.update(overrides)
    try:
        # strict=False lets environment text become the int or bool it stands for.
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"settings: {exc}", hint=f"look in {path} and at CALLROUTER_* in the environment") from exc
