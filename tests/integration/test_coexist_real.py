"""callrouter inside somebody else's Asterisk: both configurations live, and theirs comes back whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from callrouter.asterisk import coexist
from callrouter.asterisk.install import find_asterisk
from callrouter.asterisk.process import AsteriskProcess
from callrouter.asterisk.render import make_directories, render
from callrouter.asterisk.secrets import load_secrets
from callrouter.config import Settings, load_settings
from tests.integration.rendered_server import home, settings, trunk  # noqa: F401 - fixtures

pytestmark = pytest.mark.asterisk


async def test_both_dialplans_and_endpoints_live_side_by_side(settings: Settings, home: Path) -> None:
    install = find_asterisk(load_settings())
    make_directories(settings)
    etc = home / "etc"
    etc.mkdir()
    secrets = load_secrets(settings)
    base = render(settings, install, [], secrets, etc_dir=etc)
    theirs = {
        "pjsip.conf": f"""
[their-transport]
type=transport
protocol=udp
bind={settings.sip_bind}:{settings.sip_port}
[their-phone]
type=endpoint
context=their-context
disallow=all
allow=ulaw
""",
        "extensions.conf": "[general]\nstatic=yes\n[globals]\nTHEIRS=1\n[their-context]\nexten => 100,1,Hangup()\n",
        "ari.conf": "[general]\nenabled=yes\n",
        "manager.conf": f"[general]\nenabled=yes\nbindaddr={settings.ami_host}\nport={settings.ami_port}\n",
        "cdr_custom.conf": "[mappings]\nTheirs.csv => ${CSV_QUOTE(${CDR(uniqueid)})}\n",
    }
    keep = {name: text for name, text in base.items() if name not in theirs and not name.startswith("cr-")}
    for name, text in {**keep, **theirs}.items():
        (etc / name).write_text(text)
    plan = coexist.plan_install(settings, install, etc, [trunk("isp", host="127.9.9.9")], secrets)
    assert coexist.apply(plan)
    asterisk = AsteriskProcess(install, etc / "asterisk.conf", home / "out.log")
    await asterisk.start()
    try:
        endpoints = await asterisk.rx("pjsip show endpoints")
        assert "their-phone" in endpoints
        assert "trunk-isp" in endpoints
        assert "callrouter-uri" in endpoints
        assert "127.9.9.9/32" in await asterisk.rx("pjsip show identify trunk-isp")
        assert "100" in await asterisk.rx("dialplan show their-context")
        assert "StasisBroadcast" in await asterisk.rx("dialplan show cr-entry")
        assert "cr-trunk-isp" in await asterisk.rx("dialplan show cr-trunk-isp")
        variables = await asterisk.rx("dialplan show globals")
        assert "THEIRS=1" in variables
        assert "CR_APP=callrouter" in variables
        assert settings.ari_user in await asterisk.rx("ari show users")
        assert settings.ami_user in await asterisk.rx("manager show users")
        log = (settings.asterisk_dir / "log" / "messages").read_text()
        assert "ERROR" not in log, log
        assert "WARNING" not in log, log
    finally:
        await asterisk.stop()
    assert coexist.apply(coexist.plan_uninstall(etc))
    assert {name: (etc / name).read_text() for name in theirs} == theirs
    assert not (etc / coexist.DIRECTORY).exists()
    assert not list(etc.glob("*.before-callrouter"))
