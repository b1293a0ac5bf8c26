"""``callrouter trunk``: protection, the next trunk, rates."""

from __future__ import annotations

from tests.unit.cli_home import Cli, acme, cli, upgraded

__all__ = ["acme", "cli", "upgraded"]


def test_a_trunk_over_tls_with_srtp(cli: Cli) -> None:
    added = cli.json(
        *("trunk", "add", "main", "--host", "192.0.2.1", "--transport", "tls", "--media-encryption", "sdes"),
        *("--secure-only", "--rate", "+1=0.009", "--rate", "+44=0.012"),
    )
    assert (added["port"], added["transport"], added["media_encryption"], added["secure_only"]) == (
        5061,
        "tls",
        "sdes",
        True,
    )
    assert added["rates"] == [["+1", 9000], ["+44", 12000]]
    shown = cli("trunk", "show", "main").output
    for words in ("192.0.2.1:5061 over tls", "SRTP, sdes", "refused", "+1 0.009, +44 0.012"):
        assert words in shown
    assert cli.json("trunk", "edit", "main", "--no-secure-only", "--rate", "")["rates"] == []
    assert "not known" in cli("trunk", "show", "main").output


def test_a_preset_over_tls_takes_the_port_of_tls(cli: Cli) -> None:
    added = cli.json("trunk", "add", "main", "--preset", "telnyx", "--transport", "tls")
    assert (added["host"], added["port"]) == ("sip.telnyx.com", 5061)
    assert (
        cli.json("trunk", "add", "other", "--preset", "telnyx", "--transport", "tls", "--port", "5070")["port"] == 5070
    )


def test_protection_that_would_be_none_is_refused(cli: Cli) -> None:
    refused = cli.refusal("trunk", "add", "main", "--host", "192.0.2.1", "--media-encryption", "sdes", code=2)
    assert "would send its keys in clear" in refused["error"]
    assert "--transport tls" in refused["hint"]
    cli("trunk", "add", "main", "--host", "192.0.2.1")
    assert "its own calls too" in cli.refusal("trunk", "edit", "main", "--secure-only", code=2)["error"]


def test_the_next_trunk(cli: Cli) -> None:
    cli("trunk", "add", "second", "--host", "192.0.2.2")
    added = cli.json("trunk", "add", "first", "--host", "192.0.2.1", "--next-trunk", "second", "--setup-seconds", "2.5")
    assert (added["next_trunk"], added["setup_seconds"]) == ("second", 2.5)
    assert "second, after 2.5 s" in cli("trunk", "show", "first").output
    assert "circle" in cli.refusal("trunk", "edit", "second", "--next-trunk", "first", code=2)["error"]
    assert "no trunk 'third'" in cli.refusal("trunk", "edit", "second", "--next-trunk", "third", code=1)["error"]
    assert "whose next it is" in cli.refusal("trunk", "rm", "second", "--yes", code=4)["error"]
    assert cli.json("trunk", "edit", "first", "--next-trunk", "")["next_trunk"] is None
    cli("trunk", "rm", "second", "--yes")


def test_bad_rates_and_seconds(cli: Cli) -> None:
    cli("trunk", "add", "main", "--host", "192.0.2.1")
    assert "is no rate" in cli.refusal("trunk", "edit", "main", "--rate", "+1=cheap", code=2)["error"]
    assert "no prefix" in cli.refusal("trunk", "edit", "main", "--rate", "44=0.1", code=2)["error"]
    assert "0.5<=x<=30" in cli("trunk", "edit", "main", "--setup-seconds", "31", code=2).output


def test_a_password_is_there_before_the_trunk(cli: Cli) -> None:
    """Who reads the trunk finds its password; a trunk that is refused leaves another's password alone."""
    words = ("trunk", "add", "main", "--host", "192.0.2.1", "--username", "bob", "--password-stdin")
    assert "trunk secret" not in cli(*words, input="first").stderr
    secret = cli.home / "secrets" / "trunk-main"
    assert secret.read_text() == "first\n"
    assert "already" in cli.refusal(*words, code=4, input="second")["error"]
    assert secret.read_text() == "first\n"
