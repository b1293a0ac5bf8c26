"""A private Asterisk for the tests of the ARI and AMI clients: minimal, on its own loopback address."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

from callrouter.asterisk.ari import AriClient
from callrouter.asterisk.install import AsteriskInstall, find_asterisk
from callrouter.config import load_settings
from callrouter.errors import AriError

MODULES = """
res_sorcery_config res_sorcery_memory res_sorcery_astdb res_pjproject res_timing_timerfd res_http_websocket
res_websocket_client res_stasis res_stasis_answer res_stasis_playback res_stasis_recording res_stasis_snoop
res_stasis_broadcast app_stasis app_stasis_broadcast res_ari res_ari_model res_ari_applications res_ari_asterisk
res_ari_bridges res_ari_channels res_ari_endpoints res_ari_events res_ari_playbacks res_ari_recordings res_ari_sounds
pbx_config app_dial app_playback app_echo app_senddtmf app_stack func_channel func_callerid func_timeout func_cdr
codec_ulaw codec_alaw codec_gsm codec_resample format_pcm format_wav format_gsm format_sln bridge_simple bridge_softmix
bridge_holding chan_bridge_media res_musiconhold cdr_manager res_rtp_asterisk res_security_log
res_pjsip res_pjsip_session res_pjsip_sdp_rtp chan_pjsip res_pjsip_endpoint_identifier_ip
res_pjsip_endpoint_identifier_user res_pjsip_authenticator_digest res_pjsip_outbound_authenticator_digest
res_pjsip_outbound_registration res_pjsip_pubsub res_pjsip_registrar
"""

EXTENSIONS = """
[general]
static=yes
[callee]
exten => talk,1,Answer()
 same => n,Echo()
exten => digit,1,Answer()
 same => n,Wait(0.3)
 same => n,SendDTMF(5)
 same => n,Playback(@PROMPT@)
 same => n,Echo()
exten => busy,1,Busy()
exten => broadcast,1,StasisBroadcast(4000,^callrouter)
 same => n,Set(GLOBAL(LAST)=${STASISSTATUS})
 same => n,Hangup()
[back]
exten => s,1,Set(GLOBAL(BACK)=${CR_DEST})
 same => n,Dial(Local/talk@callee/n,5)
 same => n,Hangup()
"""


@cache
def install() -> AsteriskInstall:
    return find_asterisk(load_settings())


def prompt(name: str) -> str:
    """Absolute path, without extension, of one of Asterisk's own prompts. (Extracted, it has no sounds/en.)"""
    (path, *_) = sorted(install().data_dir.glob(f"sounds/en*/{name}.*"))
    return str(path.with_suffix(""))


def rest_api_dir() -> Path:
    """Asterisk's description of its own REST API."""
    return install().data_dir / "rest-api"


def free_port(address: str) -> int:
    with socket.socket() as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


async def until(condition: Callable[[], Any], seconds: float = 15.0, *, what: str = "") -> Any:
    """Poll until the condition (plain or a coroutine function) is true; fail at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert loop.time() < deadline, f"not within {seconds} s: {what or condition}"
        await asyncio.sleep(0.02)


class EdgeAsterisk:
    """Asterisk run by the test that made it."""

    def __init__(self, home: Path, address: str) -> None:
        self.home = home
        self.address = address
        self.user = "callrouter"
        self.password = secrets.token_urlsafe(16)
        self.http_port = free_port(address)
        self.ami_port = free_port(address)
        self.sip_port = free_port(address)
        self.process: subprocess.Popen[bytes] | None = None
        self._write()

    @property
    def base_url(self) -> str:
        return f"http://{self.address}:{self.http_port}"

    def _write(self) -> None:
        etc = self.home / "etc"
        for name in ("etc", "run", "log", "spool/recording", "db"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        files = {
            "asterisk.conf": f"""
[directories]
astetcdir => {etc}
astmoddir => {install().modules_dir}
astdatadir => {install().data_dir}
astvarlibdir => {self.home}/db
astdbdir => {self.home}/db
astkeydir => {self.home}/db
astagidir => {self.home}/db
astspooldir => {self.home}/spool
astrundir => {self.home}/run
astlogdir => {self.home}/log
""",
            "modules.conf": "[modules]\nautoload=no\n" + "".join(f"load = {name}.so\n" for name in MODULES.split()),
            "logger.conf": "[logfiles]\nmessages => notice,warning,error\n",
            "http.conf": f"[general]\nenabled=yes\nbindaddr={self.address}\nbindport={self.http_port}\n",
            "ari.conf": f"[general]\nenabled=yes\nchannelvars=CR_CALL\n"
            f"[{self.user}]\ntype=user\npassword={self.password}\n",
            "manager.conf": f"""
[general]
enabled=yes
bindaddr={self.address}
port={self.ami_port}
[{self.user}]
secret={self.password}
read=system,call,security,cdr,reporting
write=system,call,command,reporting
eventfilter(action(exclude),name(TestEvent)) =
""",
            "cdr.conf": "[general]\nenable=yes\nunanswered=yes\n",
            "cdr_manager.conf": "[general]\nenabled=yes\n",
            "rtp.conf": "[general]\nrtpstart=31000\nrtpend=31100\n",
            "extensions.conf": EXTENSIONS.replace("@PROMPT@", prompt("demo-congrats")),
            "musiconhold.conf": "",
            "pjsip.conf": f"""
[global]
type=global
[udp]
type=transport
protocol=udp
bind={self.address}:{self.sip_port}
[spring]
type=endpoint
transport=udp
context=callee
disallow=all
allow=ulaw
aors=spring
[spring]
type=aor
contact=sip:{self.address}:{self.sip_port}
qualify_frequency=2
[spring]
type=registration
transport=udp
server_uri=sip:{self.address}:9
client_uri=sip:spring@{self.address}
retry_interval=10
""",
        }
        for name, text in files.items():
            (etc / name).write_text(text)

    def start(self) -> None:
        command = install().command("-C", str(self.home / "etc/asterisk.conf"), "-f")
        with (self.home / "log/console").open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    async def up(self) -> None:
        """Started, with every module loaded: its HTTP port opens before ARI is there."""
        self.start()
        await self.ready()

    async def ready(self) -> None:

        def ports_open() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, (self.home / "log/console").read_text()[-2000:]
            for port in (self.http_port, self.ami_port):
                with socket.socket() as sock:
                    if sock.connect_ex((self.address, port)):
                        return False
            return True

        await until(ports_open, 30, what="Asterisk's ports open")
        async with AriClient(self.base_url, self.user, self.password) as ari:

            async def answers() -> bool:
                try:
                    await ari.ping()
                    await ari.bridges()
                except AriError:
                    return False
                return True

            await until(answers, 30, what="ARI answers")

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(10)
            self.process = None


def load_api(name: str) -> dict[str, Any]:
    """One of Asterisk's API descriptions, such as ``events``."""
    description: dict[str, Any] = json.loads((rest_api_dir() / f"{name}.json").read_text("utf-8"))
    return description
