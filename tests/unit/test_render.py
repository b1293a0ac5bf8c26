"""Rendering, validation and placement of Asterisk's configuration, without an Asterisk."""

from __future__ import annotations

import dataclasses
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from callrouter.asterisk import coexist
from callrouter.asterisk.conffile import parse_conf
from callrouter.asterisk.ledger import LEDGER_COLUMNS, parse_ledger, read_ledger
from callrouter.asterisk.render import Files, make_directories, render, restore_good, write_config
from callrouter.asterisk.secrets import Secret, Secrets, ensure_secret, load_secrets, read_secret, write_secret
from callrouter.asterisk.validate import validate
from callrouter.config import Settings, load_settings
from callrouter.core.model import DidSource, MediaEncryption, Trunk
from callrouter.errors import ConfigError, ConflictError, InputError


class Install:
    """An Asterisk that has every module but those named."""

    modules_dir = Path("/opt/asterisk/modules")
    data_dir = Path("/opt/asterisk/data")

    def __init__(self, *absent: str) -> None:
        self.absent = absent

    def has_module(self, name: str) -> bool:
        return name not in self.absent


SECRETS = Secrets(Secret("ari-secret"), Secret("ami-secret"), {"isp": Secret("p;w=[x]")})
TRUNK = Trunk(id="1", name="isp", preset="generic-ip", host="203.0.113.5")


def settings(**values: Any) -> Settings:
    return load_settings(environ={}, **{"home": "/srv/callrouter", **values})


def rendered(*trunks: Trunk, absent: tuple[str, ...] = (), **values: Any) -> Files:
    return render(settings(**values), Install(*absent), trunks, SECRETS)


def test_everything_rendered_is_valid() -> None:
    registering = dataclasses.replace(
        TRUNK, registers=True, username="acme", did_source=DidSource.TO_HEADER, host="sip.example.net"
    )
    files = rendered(registering, sip_external_address="198.51.100.7")
    validate(files)
    pjsip = parse_conf("pjsip.conf", files["pjsip.conf"])
    kinds = {section.get("type"): section for section in pjsip.named("trunk-isp")}
    assert set(kinds) == {"endpoint", "aor", "identify", "auth", "registration"}
    assert kinds["endpoint"].get("identify_by") == "ip"
    assert kinds["auth"].get("password") == "p;w=[x]"
    assert kinds["registration"].get("client_uri") == "sip:acme@sip.example.net"
    assert kinds["identify"].get("match") == "sip.example.net"
    assert not [s for s in pjsip.sections if s.name == "anonymous"]


def test_no_log_and_no_event_of_asterisk_holds_digits() -> None:
    """Callers press what nobody may know."""
    files = rendered()
    levels = {
        level
        for line in files["logger.conf"].splitlines()
        if "=>" in line
        for level in re.findall(r"[a-z*]+", line.partition("=>")[2].replace("[json]", ""))
    }
    assert levels <= {"notice", "warning", "error", "security"}
    (read,) = re.findall(r"^read = (.*)$", files["manager.conf"], re.MULTILINE)
    assert not {"dtmf", "all"} & set(read.split(","))
    assert "DTMF" not in files["manager.conf"] + files["cel.conf"]


def test_tcp_trunk_dials_by_tcp() -> None:
    pjsip = parse_conf("pjsip.conf", rendered(dataclasses.replace(TRUNK, transport="tcp", port=5070))["pjsip.conf"])
    (aor,) = [s for s in pjsip.named("trunk-isp") if s.get("type") == "aor"]
    assert aor.get("contact") == "sip:203.0.113.5:5070;transport=tcp"


def test_simulator_is_there_only_when_asked_for() -> None:
    assert "simulator" in rendered()["cr-trunks.conf"]
    files = rendered(simulator=False)
    assert "simulator" not in files["cr-trunks.conf"] + files["pjsip.conf"]


def test_modules_an_older_asterisk_lacks_are_left_out() -> None:
    files = rendered(absent=("app_stasis_broadcast", "res_cdrel_custom"))
    assert "\nload = app_stasis_broadcast.so" not in files["modules.conf"]
    assert "CR_BROADCAST = 0" in files["extensions.conf"]
    assert "${CSV_QUOTE(${CDR(start,u)})}" in files["cdr_custom.conf"]
    with pytest.raises(ConfigError, match=r"lacks res_ari\.so"):
        rendered(absent=("res_ari",))


HOSTILE = [
    "x\nset_var=a",
    "x\r\n[evil]",
    "x;y",
    "x]",
    "[x",
    "x\x00y",
    "${SHELL(id)}",
    "$[1+1]",
    'x"y',
    "x y",
    "x,y",
    "",
    "../x",
    "x\u2028y",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", ["name", "host", "username", "match", "codecs", "transport"])
def test_hostile_trunk_values_are_refused(field: str, value: str) -> None:
    given: Any = (value,) if field in ("match", "codecs") else value
    if value == "" and field == "codecs":
        return  # no codec named: the installation's are taken
    trunk = dataclasses.replace(TRUNK, **{field: given, **({"registers": True} if field == "username" else {})})
    with pytest.raises(ConfigError):
        rendered(trunk)


@pytest.mark.parametrize("value", [v for v in HOSTILE if v])
@pytest.mark.parametrize(
    "field",
    ["home", "codecs", "sip_bind", "sip_external_address", "ari_host", "ari_user", "ami_user", "simulator_address"],
)
def test_hostile_settings_are_refused(field: str, value: str) -> None:
    if (field, value) in {("home", "../x"), ("codecs", "x,y")}:
        return  # odd, but proper: a path, a list
    with pytest.raises(ConfigError):
        render(settings(**{field: value}), Install(), [], SECRETS)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "simulator"}, "no name for a trunk"),
        ({"match": ("0.0.0.0/0",)}, "whole world"),
        ({"match": ("127.0.0.0/8",)}, "simulated carrier"),
        ({"host": "300.1.2.3"}, "no host name or address"),
        ({"transport": "sctp"}, "no transport 'sctp'"),
        ({"media_encryption": MediaEncryption.SDES}, "its keys in clear"),
        ({"secure_only": True}, "its own calls too"),
        ({"registers": True}, "no user name"),
        ({"name": "other", "username": "acme"}, "password is missing from secrets/trunk-other"),
        ({"port": 0}, "between 1 and 65535"),
    ],
)
def test_trunks_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        rendered(dataclasses.replace(TRUNK, **change))
    assert caught.value.hint


def test_only_a_trusted_trunk_is_believed() -> None:
    for trusted in (False, True):
        files = rendered(dataclasses.replace(TRUNK, trust_identity=trusted))
        assert ("trust_id_inbound = yes" in files["pjsip.conf"]) is trusted
        assert ("Gosub(cr-verified,s,1)" in files["cr-trunks.conf"]) is trusted


def test_two_trunks_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two trunks"):
        rendered(TRUNK, TRUNK)


def test_home_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(ConfigError, match="characters too long"):
        rendered(home="/" + "x" * 100)


def test_simulator_must_be_on_loopback() -> None:
    with pytest.raises(ConfigError, match="loopback"):
        rendered(simulator_address="203.0.113.9")


# -- validation --------------------------------------------------------------------------------------------------------

GOOD_ENDPOINT = "[a]\ntype=endpoint\nidentify_by=ip\nallow_subscribe=no\ncontext=c\n"


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("x.conf", "key = value\n", r"x\.conf, line 1: 'key' stands before"),
        ("x.conf", "[a\n", "is no section"),
        ("x.conf", "[a]\nnonsense\n", "line 2: 'nonsense' is neither"),
        ("x.conf", "[a]\n#exec /bin/sh\n", "would run a program"),
        ("x.conf", "[a](nowhere)\n", "template 'nowhere'"),
        ("x.conf", ";-- open\n[a]\n", "never closed"),
        ("x.conf", '#include "gone.conf"\n', "no such file"),
        ("ari.conf", "[general]\n[u]\n[u]\n", "stands already in line 2"),
        ("pjsip.conf", "[a]\ncontext=c\n", "has no type"),
        ("pjsip.conf", "[anonymous]\ntype=endpoint\n", "lets everybody in"),
        ("pjsip.conf", "[a]\ntype=endpoint\n", "can be impersonated"),
        ("pjsip.conf", "[a]\ntype=endpoint\nidentify_by=ip\n", "accepts subscriptions"),
        ("pjsip.conf", GOOD_ENDPOINT + "aors=b\n", "no such aor"),
        ("pjsip.conf", GOOD_ENDPOINT + "outbound_auth=b\n", "no such auth"),
        ("pjsip.conf", GOOD_ENDPOINT + "transport=b\n", "no such transport"),
        ("pjsip.conf", GOOD_ENDPOINT.replace("[a]", "[trunk-a]"), "nothing identifies it"),
        ("pjsip.conf", GOOD_ENDPOINT + "[a]\ntype=identify\nendpoint=a\nmatch=300.0.0.1\n", "no address, network"),
        ("pjsip.conf", GOOD_ENDPOINT + "[a]\ntype=identify\nendpoint=b\nmatch=10.0.0.1\n", "does not exist"),
        ("pjsip.conf", GOOD_ENDPOINT + GOOD_ENDPOINT, "a second endpoint"),
        ("extensions.conf", "[c]\nexten => s,1,Goto(d,s,1)\n", "context 'd', which does not exist"),
        ("extensions.conf", "[c]\nexten => s,1,GotoIf($[1]?gone)\n", "jumps to gone"),
        ("extensions.conf", "[c]\nexten => s,1,Dial(X,1,U(gone^x))\n", "context 'gone'"),
        ("extensions.conf", "[c]\nexten => s,1,NoOp()\nexten => s,1,NoOp()\n", "stands twice"),
        ("extensions.conf", "[c]\nexten => s,n,NoOp()\n", "begins with priority n"),
        ("extensions.conf", "[c]\nexten => s,1,Set(X=${Y)\n", "do not pair up"),
        ("extensions.conf", "[c]\nsame => n,NoOp()\n", "before any exten"),
        ("extensions.conf", "[c]\nextn => s,1,NoOp()\n", "no dialplan word"),
    ],
)
def test_broken_files_are_pointed_at(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate({name: text})


def test_endpoint_context_must_be_in_the_dialplan() -> None:
    with pytest.raises(ConfigError, match="context 'c' is not in the dialplan"):
        validate({"pjsip.conf": GOOD_ENDPOINT, "extensions.conf": "[d]\nexten => s,1,NoOp()\n"})


# -- placement ---------------------------------------------------------------------------------------------------------


def test_configuration_is_placed_whole_and_the_last_one_kept(tmp_path: Path) -> None:
    etc = tmp_path / "asterisk" / "etc"
    first, second = rendered(), rendered(TRUNK)
    assert write_config(first, etc)
    assert not write_config(first, etc), "unchanged"
    assert write_config(second, etc)
    assert stat.S_IMODE(etc.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in etc.iterdir()} == {0o600}
    assert (etc.parent / "etc.good" / "pjsip.conf").read_text() == first["pjsip.conf"]
    with pytest.raises(ConfigError):
        write_config({**second, "pjsip.conf": "[broken\n"}, etc)
    assert (etc / "pjsip.conf").read_text() == second["pjsip.conf"]
    assert sorted(path.name for path in etc.parent.iterdir()) == ["etc", "etc.good"]
    assert restore_good(etc)
    assert (etc / "pjsip.conf").read_text() == first["pjsip.conf"]


def test_directories_are_private(tmp_path: Path) -> None:
    there = settings(home=str(tmp_path / "h"))
    make_directories(there)
    assert there.recording_spool.is_dir()
    assert stat.S_IMODE(there.failsafe_dir.stat().st_mode) == 0o700


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_secrets_are_made_once_private_and_masked(tmp_path: Path) -> None:
    there = settings(home=str(tmp_path))
    first, second = load_secrets(there), load_secrets(there)
    assert first.ari.reveal() == second.ari.reveal()
    assert first.ari.reveal() != first.ami.reveal()
    assert len(first.ari.reveal()) >= 43
    assert stat.S_IMODE((there.secrets_dir / "ari-password").stat().st_mode) == 0o600
    assert stat.S_IMODE(there.secrets_dir.stat().st_mode) == 0o700
    shown = f"{first.ari} {first.ari!r} {first!r} {first.ari:>5} %s" % first.ari
    assert first.ari.reveal() not in shown


def test_open_secrets_are_refused(tmp_path: Path) -> None:
    ensure_secret(tmp_path / "s", "ari-password")
    path = tmp_path / "s" / "ari-password"
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by other users") as caught:
        read_secret(tmp_path / "s", "ari-password")
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("text", ["", "a\nb", " a", "a\x00", "x" * 200])
def test_passwords_asterisk_cannot_hold_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError):
        write_secret(tmp_path, "trunk-x", text)
    assert not (tmp_path / "trunk-x").exists()


def test_missing_trunk_password_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_secrets(settings(home=str(tmp_path)), [dataclasses.replace(TRUNK, username="acme")])
    assert caught.value.hint == "callrouter trunk edit isp --password"


# -- ledger ------------------------------------------------------------------------------------------------------------


def ledger_line(**values: str) -> str:
    row = {"uniqueid": "u1", "start": "100.5", "end": "110.0", "answer": "0.000000", **values}
    return ",".join('"' + row.get(name, "").replace('"', '""') + '"' for name, _ in LEDGER_COLUMNS)


def test_ledger_row_is_read() -> None:
    row = parse_ledger(
        ledger_line(answer="102.0", talk_at="104.25", talk_end="109.0", dialstatus="ANSWER", cause="16", did='+1"x')
    )
    assert (row.answer, row.talk_at, row.talk_seconds, row.cause, row.did) == (102.0, 104.25, 4.75, 16, '+1"x')
    assert parse_ledger(ledger_line()).answer is None
    with pytest.raises(ValueError, match="columns"):
        parse_ledger('"u1","100"')


def test_ledger_is_read_on_from_an_offset_and_past_damage(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text(ledger_line() + "\nrubbish\n" + ledger_line(uniqueid="u2") + "\n" + ledger_line(uniqueid="u3")[:40])
    found = list(read_ledger(path))
    assert [row.uniqueid for row, _ in found] == ["u1", "u2"]
    assert list(read_ledger(path, found[-1][1])) == []
    assert list(read_ledger(tmp_path / "none")) == []


# -- somebody's own Asterisk -------------------------------------------------------------------------------------------


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "asterisk.conf").write_text("[directories]\n")
    (etc / "pjsip.conf").write_text("[theirs]\ntype=transport\nprotocol=udp\nbind=127.0.0.1")
    (etc / "extensions.conf").write_text("[globals]\nA=1\n[default]\nexten => 1,1,Hangup()\n")
    (etc / "manager.conf").write_text("[general]\nenabled=yes\nport=5099\n")
    (etc / "manager.conf").chmod(0o640)
    return etc


def contents(etc: Path) -> dict[str, str]:
    return {str(path.relative_to(etc)): path.read_text() for path in etc.rglob("*") if path.is_file()}


def plan(etc: Path, *trunks: Trunk) -> coexist.InstallPlan:
    return coexist.plan_install(settings(), Install(), etc, trunks, SECRETS)


def test_open_doors_of_theirs_are_told(theirs: Path) -> None:
    assert not any("unencrypted" in note or "live_dangerously" in note for note in plan(theirs).notes)
    (theirs / "http.conf").write_text("[general]\nenabled = yes\nbindaddr = 0.0.0.0\nbindport = 8088\n")
    with (theirs / "asterisk.conf").open("a") as file:
        file.write("[options]\nlive_dangerously = yes\n")
    notes = plan(theirs).notes
    assert any("http.conf listens on 0.0.0.0, unencrypted" in note for note in notes)
    assert any("asterisk.conf has live_dangerously = yes" in note for note in notes)


@pytest.mark.parametrize(
    "line, logs",
    [
        ("messages => notice,warning,error", False),
        (";full => notice,dtmf", False),
        ("messages => notice ; no dtmf", False),
        ("full => notice,warning,dtmf,fax", True),
        ("full.json=[json]dtmf", True),
        ("everything => *", True),
    ],
)
def test_a_log_of_theirs_that_takes_digits_is_told(theirs: Path, line: str, logs: bool) -> None:
    (theirs / "logger.conf").write_text(f"[logfiles]\n{line}\n")
    assert any("logger.conf logs dtmf" in note for note in plan(theirs).notes) is logs


def test_install_adds_and_uninstall_takes_away_again(theirs: Path) -> None:
    before = contents(theirs)
    first = plan(theirs)
    assert any("callrouter.d/pjsip.conf" in line for line in first.describe())
    assert any("5099" in note for note in first.notes)
    assert contents(theirs) == before, "a plan touches nothing"
    assert coexist.apply(first)
    assert (theirs / "pjsip.conf").read_text().startswith(before["pjsip.conf"])
    assert "#tryinclude callrouter.d/pjsip.conf" in (theirs / "pjsip.conf").read_text()
    assert (theirs / "pjsip.conf.before-callrouter").read_text() == before["pjsip.conf"]
    assert "[globals](+)" in (theirs / "callrouter.d" / "extensions.conf").read_text()
    assert "transport =" not in (theirs / "callrouter.d" / "pjsip.conf").read_text()
    assert stat.S_IMODE((theirs / "manager.conf").stat().st_mode) == 0o640
    assert not coexist.apply(plan(theirs)), "a second time changes nothing"
    assert plan(theirs).describe()[0] == "nothing to do"
    assert coexist.apply(plan(theirs, TRUNK))
    assert (theirs / "pjsip.conf").read_text().count("#tryinclude") == 1
    assert coexist.apply(coexist.plan_uninstall(theirs))
    after = contents(theirs)
    assert {name: text.rstrip("\n") for name, text in after.items() if "before" not in name} == {
        name: text.rstrip("\n") for name, text in before.items()
    }


def test_taken_names_are_refused(theirs: Path) -> None:
    with (theirs / "pjsip.conf").open("a") as file:
        file.write("\n#include more.conf\n")
    (theirs / "more.conf").write_text("[trunk-isp]\ntype=endpoint\n")
    with pytest.raises(ConflictError, match=r"\[trunk-isp\] already"):
        plan(theirs, TRUNK)


def test_files_changed_after_the_plan_are_left_alone(theirs: Path) -> None:
    made = plan(theirs)
    (theirs / "pjsip.conf").write_text("[mine]\ntype=system\n")
    with pytest.raises(ConflictError, match="changed meanwhile"):
        coexist.apply(made)
    assert not (theirs / "callrouter.d").exists()


def test_forbidden_modules_and_odd_directories_are_refused(theirs: Path, tmp_path: Path) -> None:
    (theirs / "modules.conf").write_text("[modules]\nnoload => res_ari.so\n")
    with pytest.raises(ConfigError, match="forbids res_ari"):
        plan(theirs)
    with pytest.raises(ConfigError, match="no configuration directory"):
        plan(tmp_path)
