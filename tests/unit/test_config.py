"""Settings: where each comes from, which one wins, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from callrouter.config import Settings, load_settings
from callrouter.errors import ConfigError

FIELDS = msgspec.structs.fields(Settings)


def written(directory: Path, text: str | bytes) -> Path:
    path = directory / "callrouter.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_defaults_are_loopback_and_need_nothing(tmp_path: Path) -> None:
    settings = load_settings(environ={}, home=str(tmp_path))
    assert {settings.sip_bind, settings.ari_host, settings.ami_host} == {"127.0.0.1"}
    assert settings.simulator_address.startswith("127.")
    assert settings.database == f"sqlite+aiosqlite:///{tmp_path}/callrouter.db"


def test_override_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = written(tmp_path, "sip_port = 5081\nari_port = 8081\nami_port = 5051\n")
    env = {"CALLROUTER_HOME": str(tmp_path), "CALLROUTER_ARI_PORT": "8082", "CALLROUTER_AMI_PORT": "5052"}
    for path in (file, None):
        settings = load_settings(path, env, ami_port=5053)
        assert (settings.sip_port, settings.ari_port, settings.ami_port) == (5081, 8082, 5053)
        assert settings.rtp_start == 10000


def test_every_setting_can_stand_in_the_environment_and_in_the_file(tmp_path: Path) -> None:
    other: dict[str, Any] = {
        "home": str(tmp_path), "recording_format": "opus", "log_level": "debug", "log_format": "json", "country": "DE",
        "ari_app": "another", "simulator": False, "speech_rate": 200, "recording_min_free_mb": 7,
        "sip_tls_verify": False, "reconcile_at": "04:10",
        "speech_voices": "es=es-419,pt=pt-br", "piper_voices": "en=/srv/a.onnx, pt-br=/srv/b.onnx",
    }  # fmt: skip
    defaults = load_settings(environ={}, home=str(tmp_path))
    values: dict[str, Any] = {}
    for field in FIELDS:
        now = getattr(defaults, field.name)
        values[field.name] = other.get(field.name, now + 1 if isinstance(now, int) else f"{now}x")
    env = {
        f"CALLROUTER_{name.upper()}": str(value).lower() if value is False else str(value)
        for name, value in values.items()
    }
    assert load_settings(environ=env) == Settings(**values)
    lines = [
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for name, value in values.items()
    ]
    assert load_settings(written(tmp_path, "\n".join(lines)), {}) == Settings(**values)


def test_the_file_may_name_the_home_but_the_environment_wins(tmp_path: Path) -> None:
    file = written(tmp_path, f"home = '{tmp_path}/one'\n")
    assert load_settings(file, {}).home_dir == tmp_path / "one"
    assert load_settings(file, {"CALLROUTER_HOME": f"{tmp_path}/two"}).home_dir == tmp_path / "two"
    assert load_settings(file, {"CALLROUTER_HOME": f"{tmp_path}/two"}, home="/three").home == "/three"


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "sip_port = 5081\n")
    assert load_settings(environ={"CALLROUTER_CONFIG": str(file), "CALLROUTER_HOME": "/x"}).sip_port == 5081


@pytest.mark.parametrize("text", ["no", "0", "False", "false"])
def test_a_switch_is_turned_off_by_the_words_people_use(text: str) -> None:
    if text == "no":
        with pytest.raises(ConfigError, match="simulator"):
            load_settings(environ={"CALLROUTER_SIMULATOR": text})
    else:
        assert load_settings(environ={"CALLROUTER_SIMULATOR": text}).simulator is False


def test_a_setting_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sip_prot") as caught:
        load_settings(written(tmp_path, "sip_prot = 5060\n"), {})
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint
    with pytest.raises(ConfigError, match="nonsense"):
        load_settings(environ={}, nonsense=1)


@pytest.mark.parametrize(
    "name, value",
    [
        ("SIP_PORT", "five"),
        ("SIP_PORT", "0"),
        ("SIP_PORT", "65536"),
        ("SIP_PORT", ""),
        ("SIP_PORT", "5060.5"),
        ("COUNTRY", "us"),
        ("COUNTRY", "USA"),
        ("ARI_APP", "my app"),
        ("ARI_APP", "a,b"),
        ("LOG_LEVEL", "loud"),
        ("RECORDING_FORMAT", "mp3"),
        ("MAX_CALL_SECONDS", "-1"),
        ("FAILSAFE_CLAIM_MS", "10"),
    ],
)
def test_a_wrong_value_names_the_setting(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name.lower()) as caught:
        load_settings(environ={f"CALLROUTER_{name}": value})
    assert "CALLROUTER_" in str(caught.value.hint)


@pytest.mark.parametrize("line", ["sip_port = []", "sip_port = true", "home = 5", "simulator = 'perhaps'"])
def test_a_wrong_type_in_the_file_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=line.split(maxsplit=1)[0]):
        load_settings(written(tmp_path, line), {})


@pytest.mark.parametrize(
    "content", [b"sip_port = \n", b"[", b"a = 'x\n", b"# \xff\xfe", b"\xff\xfes\0i\0p\0"], ids=repr
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    file = written(tmp_path, content)
    with pytest.raises(ConfigError, match=r"callrouter\.toml") as caught:
        load_settings(file, {})
    assert caught.value.hint
    with pytest.raises(ConfigError, match=r"callrouter\.toml"):
        load_settings(environ={"CALLROUTER_HOME": str(tmp_path)})


def test_a_file_that_was_asked_for_must_be_there_and_the_usual_one_need_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_settings(tmp_path / "absent.toml", {})
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_settings(tmp_path, {})
    assert load_settings(environ={"CALLROUTER_HOME": str(tmp_path / "absent")}).sip_port == 5060


def test_a_directory_in_the_way_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "callrouter.toml").mkdir()
    with pytest.raises(ConfigError, match=r"callrouter\.toml"):
        load_settings(environ={"CALLROUTER_HOME": str(tmp_path)})
    (tmp_path / "file").write_text("")
    assert load_settings(environ={"CALLROUTER_HOME": str(tmp_path / "file" / "below")}).sip_port == 5060


def test_settings_cannot_be_changed() -> None:
    settings = load_settings(environ={})
    with pytest.raises(AttributeError):
        settings.sip_port = 1  # type: ignore[misc]


def descriptions(kind: msgspec.inspect.Type) -> list[str]:
    found: list[str] = []
    if isinstance(kind, msgspec.inspect.Metadata):
        text = (kind.extra_json_schema or {}).get("description")
        found = [text] if text else []
        return found + descriptions(kind.type)
    return found


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_setting_is_described(field: msgspec.structs.FieldInfo) -> None:
    info = msgspec.inspect.type_info(Settings)
    assert isinstance(info, msgspec.inspect.StructType)
    (known,) = [each for each in info.fields if each.name == field.name]
    (text,) = descriptions(known.type)
    assert len(text) > 15
    assert text.endswith((".", "DB", ")"))


def test_voices_by_language() -> None:
    assert load_settings(environ={}).language_voices == {}
    found = load_settings(environ={"CALLROUTER_SPEECH_VOICES": "es=es-419, pt-br=pt-br"})
    assert found.language_voices == {"es": "es-419", "pt-br": "pt-br"}
    for bad in ("es", "es=", "=es", "es=es;rm"):
        with pytest.raises(ConfigError):
            load_settings(environ={"CALLROUTER_SPEECH_VOICES": bad})


def test_places_are_below_home_unless_said_otherwise(tmp_path: Path) -> None:
    settings = load_settings(environ={}, home=str(tmp_path))
    places = [
        settings.recordings, settings.recording_spool, settings.secrets_dir, settings.journal_dir, settings.prompts_dir,
        settings.failsafe_dir, settings.asterisk_dir, settings.asterisk_etc_dir, settings.ledger_path,
    ]  # fmt: skip
    assert all(place.is_relative_to(tmp_path) for place in places)
    assert len(set(places)) == len(places)
    elsewhere = load_settings(
        environ={}, home=str(tmp_path), recordings_dir="/srv/rec", asterisk_etc="/etc/asterisk", asterisk_spool="/spool"
    )
    assert elsewhere.recordings == Path("/srv/rec")
    assert elsewhere.asterisk_etc_dir == Path("/etc/asterisk")
    assert elsewhere.recording_spool == Path("/spool/recording")
    assert load_settings(environ={}, home=str(tmp_path), recordings_dir="rec").recordings == tmp_path / "rec"


def test_a_relative_home_and_a_tilde_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert load_settings(environ={}, home="~/cr").home_dir == tmp_path / "cr"
    assert load_settings(environ={}, home="cr").home_dir == tmp_path / "cr"
