"""Certificates, and what is rendered for trunks over TLS with SRTP."""

from __future__ import annotations

import dataclasses
import ssl
import stat
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from callrouter.asterisk import tls
from callrouter.asterisk.conffile import ConfFile, parse_conf
from callrouter.asterisk.render import Files
from callrouter.asterisk.tls import read_certificate, self_signed, tls_files
from callrouter.asterisk.validate import validate
from callrouter.config import Settings
from callrouter.core.model import MediaEncryption, Trunk
from callrouter.errors import ConfigError
from tests.unit.test_render import TRUNK, rendered, settings

SECURE = dataclasses.replace(TRUNK, transport="tls", port=5061, media_encryption=MediaEncryption.SDES)


def pair(directory: Path, name: str = "acme") -> tuple[Path, Path]:
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    for path, text in zip((certificate, key), self_signed([f"{name}.example.net"]), strict=True):
        path.write_bytes(text)
        path.chmod(0o600)
    return certificate, key


def made(home: Path, *trunks: Trunk, **values: Any) -> Files:
    return rendered(*trunks, home=str(home), **values)


def pjsip(files: Files) -> ConfFile:
    return parse_conf("pjsip.conf", files["pjsip.conf"])


# -- certificates ------------------------------------------------------------------------------------------------------


def test_a_certificate_of_our_own_is_made_once_and_private(tmp_path: Path) -> None:
    here = settings(home=str(tmp_path), sip_external_address="198.51.100.7", sip_bind="0.0.0.0")
    files = tls_files(here)
    assert files.certificate == tmp_path / "tls" / "certificate.pem"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (files.certificate, files.key)] == [0o600, 0o600]
    assert stat.S_IMODE(files.key.parent.stat().st_mode) == 0o700
    before = files.certificate.read_bytes()
    assert tls_files(here) == files
    assert files.certificate.read_bytes() == before
    names = read_certificate(files.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ip_address("198.51.100.7") in names.get_values_for_type(x509.IPAddress)
    assert ip_address("0.0.0.0") not in names.get_values_for_type(x509.IPAddress)


def test_half_a_pair_is_made_again(tmp_path: Path) -> None:
    here = settings(home=str(tmp_path))
    files = tls_files(here)
    files.certificate.unlink()
    tls_files(here)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key)


def test_a_configured_certificate_and_authority(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path)
    here = settings(home=str(tmp_path), sip_tls_certificate="acme.pem", sip_tls_key=str(key), sip_tls_ca="acme.pem")
    assert tls_files(here) == tls.TlsFiles(certificate, key, certificate)
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"sip_tls_certificate": "acme.pem"}, "belong together"),
        ({"sip_tls_certificate": "absent.pem", "sip_tls_key": "acme.key"}, r"absent\.pem: No such file"),
        ({"sip_tls_certificate": "acme.pem", "sip_tls_key": "absent.key"}, r"absent\.key: No such file"),
        ({"sip_tls_certificate": "acme.key", "sip_tls_key": "acme.key"}, "holds no certificate"),
        ({"sip_tls_certificate": "acme.pem", "sip_tls_key": "other.key"}, "is not the key of"),
        ({"sip_tls_certificate": "acme.pem", "sip_tls_key": "open.key"}, "can be read by everybody"),
        ({"sip_tls_ca": "absent.pem"}, r"absent\.pem: No such file"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, values: dict[str, str], message: str) -> None:
    pair(tmp_path)
    pair(tmp_path, "other")
    (tmp_path / "open.key").write_bytes((tmp_path / "acme.key").read_bytes())
    (tmp_path / "open.key").chmod(0o644)
    with pytest.raises(ConfigError, match=message):
        tls_files(settings(home=str(tmp_path), **values))


def test_a_machine_without_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_SYSTEM_CAS", ())
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: ssl.DefaultVerifyPaths("", "", "", "", "", ""))
    with pytest.raises(ConfigError, match="no list of certificate authorities"):
        tls_files(settings(home=str(tmp_path)))
    assert tls_files(settings(home=str(tmp_path), sip_tls_verify=False)).authorities is None


# -- what is rendered --------------------------------------------------------------------------------------------------


def test_without_a_trunk_over_tls_nothing_of_it_is_there(tmp_path: Path) -> None:
    files = made(tmp_path, TRUNK)
    assert "tls" not in files["pjsip.conf"]
    assert "media_encryption" not in files["pjsip.conf"]
    assert "res_srtp" not in files["modules.conf"]
    assert "Gosub(cr-secure-only" not in files["cr-trunks.conf"]
    assert not (tmp_path / "tls").exists()


def test_a_trunk_over_tls(tmp_path: Path) -> None:
    certificate, _ = pair(tmp_path)
    files = made(tmp_path, dataclasses.replace(SECURE, secure_only=True), sip_tls_ca=str(certificate), sip_bind="::1")
    validate(files)
    (transport,) = pjsip(files).named("cr-tls")
    wanted = {"protocol": "tls", "bind": "[::1]:5061", "method": "tlsv1_2", "verify_server": "yes"}
    wanted |= {"allow_wildcard_certs": "yes"}
    wanted |= {"ca_list_file": str(certificate), "priv_key_file": str(tmp_path / "tls" / "key.pem")}
    assert {key: transport.get(key) for key in wanted} == wanted
    kinds = {section.get("type"): section for section in pjsip(files).named("trunk-isp")}
    assert kinds["endpoint"].get("transport") == "cr-tls"
    assert kinds["endpoint"].get("media_encryption") == "sdes"
    assert kinds["endpoint"].get("media_encryption_optimistic") == "no"
    assert kinds["endpoint"].get("dtls_verify") is None
    assert kinds["aor"].get("contact") == "sip:203.0.113.5:5061;transport=tls"
    assert "require = res_srtp.so" in files["modules.conf"]
    assert "Gosub(cr-secure-only,s,1)" in files["cr-trunks.conf"]
    with pytest.raises(ConfigError, match=r"lacks res_srtp\.so"):
        made(tmp_path, SECURE, absent=("res_srtp",))


def test_a_name_at_its_own_port_is_looked_up(tmp_path: Path) -> None:
    for port, contact in (
        (5061, "sip:sip.example.net;transport=tls"),
        (5060, "sip:sip.example.net:5060;transport=tls"),
    ):
        trunk = dataclasses.replace(SECURE, host="sip.example.net", port=port)
        (aor,) = [s for s in pjsip(made(tmp_path, trunk)).named("trunk-isp") if s.get("type") == "aor"]
        assert aor.get("contact") == contact


def test_dtls_takes_its_fingerprint_from_the_offer(tmp_path: Path) -> None:
    trunk = dataclasses.replace(TRUNK, media_encryption=MediaEncryption.DTLS)
    files = made(tmp_path, trunk)
    (endpoint,) = [s for s in pjsip(files).named("trunk-isp") if s.get("type") == "endpoint"]
    assert endpoint.get("transport") == "cr-udp"
    assert (endpoint.get("media_encryption"), endpoint.get("dtls_verify")) == ("dtls", "fingerprint")
    assert not pjsip(files).named("cr-tls")


def test_verification_can_be_switched_off(tmp_path: Path) -> None:
    (transport,) = pjsip(made(tmp_path, SECURE, sip_tls_verify=False)).named("cr-tls")
    assert (transport.get("verify_server"), transport.get("ca_list_file")) == ("no", None)


def test_tls_needs_a_port_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are both 5060"):
        made(tmp_path, SECURE, sip_tls_port=5060)


@pytest.mark.parametrize("field", ["sip_tls_ca", "sip_tls_certificate"])
def test_paths_that_asterisk_would_misread_are_refused(tmp_path: Path, field: str) -> None:
    directory = tmp_path / "a;b"
    directory.mkdir()
    certificate, key = pair(directory)
    values = {field: str(certificate)} | ({"sip_tls_key": str(key)} if field == "sip_tls_certificate" else {})
    with pytest.raises(ConfigError, match="characters"):
        made(tmp_path, SECURE, **values)


def test_settings_have_defaults_that_verify() -> None:
    assert (Settings().sip_tls_verify, Settings().sip_tls_port) == (True, 5061)
