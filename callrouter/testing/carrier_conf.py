"""Configuration of the carrier's private Asterisk: PJSIP on one loopback address, a manager port, a fixed dialplan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

MANAGER_USER = "carrier"
_MODULES = (
    "res_timing_timerfd",
    "res_timing_pthread",
    "res_sorcery_config",
    "res_sorcery_memory",
    "res_sorcery_astdb",
    "res_pjproject",
    "res_pjsip",
    "res_pjsip_pubsub",
    "res_pjsip_session",
    "res_pjsip_sdp_rtp",
    "res_pjsip_caller_id",
    "res_pjsip_diversion",
    "res_pjsip_dtmf_info",
    "res_pjsip_endpoint_identifier_ip",
    "res_pjsip_header_funcs",
    "res_pjsip_rfc3326",
    "res_pjsip_nat",
    "res_pjsip_dlg_options",
    "res_pjsip_authenticator_digest",
    "res_rtp_asterisk",
    "chan_pjsip",
    "codec_ulaw",
    "codec_alaw",
    "codec_a_mu",
    "codec_resample",
    "format_wav",
    "format_pcm",
    "format_sln",
    "res_musiconhold",
    "app_mixmonitor",
    "app_playback",
    "app_playtones",
    "app_senddtmf",
    "app_stack",
    "app_userevent",
    "app_while",
    "func_uri",
    "func_cut",
    "func_strings",
    "func_timeout",
    "func_channel",
    "func_callerid",
    "func_logic",
    "func_hangupcause",
    "func_global",
    "pbx_config",
)
_REGISTRAR = ("res_pjsip_endpoint_identifier_user", "res_pjsip_registrar")
_SRTP = ("res_srtp",)
REGISTRATION_SECONDS = 12
"""What a registrar grants: short, so that one that went away is soon missed."""
_REGISTRAR = ("res_pjsip_endpoint_identifier_user", "res_pjsip_registrar")
_SRTP = ("res_srtp",)
REGISTRATION_SECONDS = 12
"""What a registrar grants: short, so that one that went away is soon missed."""
# Without these no call can be made: Asterisk then refuses to start instead of failing every call.
_ESSENTIAL = {
    "chan_pjsip",
    "res_rtp_asterisk",
    "pbx_config",
    "app_mixmonitor",
    "app_senddtmf",
    "app_playtones",
    "func_uri",
}
# Read at start by Asterisk's core; empty ones keep its log free of complaints.
_EMPTY = ("acl.conf", "ccss.conf", "features.conf", "pjproject.conf", "stasis.conf", "udptl.conf")


@dataclass(frozen=True, slots=True)
class CarrierLayout:
    """Where the carrier keeps its files, below one directory of its own (``run`` may lie elsewhere: short paths)."""

    directory: Path
    run: Path

    @property
    def etc(self) -> Path:
        return self.directory / "etc"

    @property
    def conf(self) -> Path:
        return self.etc / "asterisk.conf"

    @property
    def log(self) -> Path:
        return self.directory / "log" / "carrier.log"

    @property
    def sounds(self) -> Path:
        """Prepared WAV files for ``Say``."""
        return self.directory / "sounds"

    @property
    def voices(self) -> Path:
        """One directory a voice, played as hold music: that goes on while keys are pressed."""
        return self.directory / "voices"

    @property
    def heard(self) -> Path:
        """Recordings of what each end heard and said."""
        return self.directory / "heard"


@dataclass(frozen=True, slots=True)
class CarrierTls:
    """SIP over TLS at a carrier: its calls go out over TLS, and it takes calls over TLS besides UDP.

    :param certificate: PEM file
    :param key: PEM file
    :param media: how it protects audio; calls that are not offered like that are refused (488)
    """

    certificate: Path
    key: Path
    media: Literal["no", "sdes", "dtls"] = "sdes"


@dataclass(frozen=True, slots=True)
class CarrierPlan:
    """Addresses and ports of one carrier.

    :param address: loopback address of its SIP, RTP and manager sockets
    :param rtp: first and last UDP port of its audio
    :param accounts: SIP user name → password of those who may register
    :param tls_port: 0: no TLS
    """

    name: str
    address: str
    sip_port: int
    manager_port: int
    rtp: tuple[int, int]
    accounts: Mapping[str, str] = field(default_factory=dict)
    tls: CarrierTls | None = None
    tls_port: int = 0


# Verbs of a programme are extensions of [leg]; "next" takes one verb off LEG_PROGRAMME and goes there.
# A phone's first lines match names of two or more characters only: "h", "i", "t" are Asterisk's own extensions.
_DIALPLAN = """\
[globals]
SOUNDS={sounds}
HEARD={heard}

[caller]
exten => s,1,MixMonitor(,r(${{HEARD}}/${{LEG_ID}}-heard.wav)t(${{HEARD}}/${{LEG_ID}}-said.wav))
 same => n,Set(TIMEOUT(absolute)=${{LEG_LIMIT}})
 same => n,Goto(leg,next,1)
exten => T,1,Goto(leg,limit,1)

[phones]
exten => _[+0-9A-Za-z][-._+0-9A-Za-z]!,1,Set(LEG_PHONE=${{EXTEN}})
 same => n,Goto(phone,arrive,1)

[phone]
exten => arrive,1,Set(CHANNEL(hangup_handler_push)=ended,s,1)
 same => n,Set(LEG_ID=${{UNIQUEID}})
 same => n,UserEvent(PhoneCall,Phone: ${{URIENCODE(${{LEG_PHONE}})}})
 same => n,Set(LEG_NAMES=${{PJSIP_HEADERS()}})
 same => n(name),Set(LEG_NAME=${{SHIFT(LEG_NAMES)}})
 same => n,GotoIf($["${{LEG_NAME}}"=""]?run)
 same => n,Set(LEG_N=1)
 same => n(value),Set(LEG_VALUE=${{URIENCODE(${{PJSIP_HEADER(read,${{LEG_NAME}},${{LEG_N}})}})}})
 same => n,GotoIf($["${{LEG_VALUE}}"=""]?name)
 same => n,UserEvent(PhoneHeader,Name: ${{LEG_NAME}},Value: ${{LEG_VALUE}})
 same => n,Set(LEG_N=$[${{LEG_N}} + 1])
 same => n,Goto(value)
 same => n(run),Set(LEG_PROGRAMME=${{PHONE_${{LEG_PHONE}}}})
 same => n,GotoIf($["${{LEG_PROGRAMME}}"=""]?unknown)
 same => n,Goto(leg,next,1)
 same => n(unknown),Set(LEG_BY=self)
 same => n,Hangup(1)

[leg]
exten => next,1,Set(LEG_STEP=${{SHIFT(LEG_PROGRAMME,&)}})
 same => n,GotoIf($["${{LEG_STEP}}"=""]?end,1)
 same => n,Set(LEG_ARG=${{CUT(LEG_STEP,:,2)}})
 same => n,Goto(${{CUT(LEG_STEP,:,1)}},1)
exten => wait,1,Wait(${{LEG_ARG}})
 same => n,Goto(next,1)
exten => stay,1,Wait(${{LEG_ARG}})
 same => n,Goto(end,1)
exten => ring,1,Ringing()
 same => n,Goto(next,1)
exten => progress,1,Progress()
 same => n,Goto(next,1)
exten => answer,1,StopPlayTones()
 same => n,StopMusicOnHold()
 same => n,Answer(0,i)
 same => n,MixMonitor(,r(${{HEARD}}/${{LEG_ID}}-heard.wav)t(${{HEARD}}/${{LEG_ID}}-said.wav))
 same => n,Goto(next,1)
exten => voice,1,Set(LEG_SOUND=voice)
 same => n,Set(LEG_VOICE=${{LEG_ARG}})
 same => n,Gosub(sound,1)
 same => n,Goto(next,1)
exten => tone,1,Set(LEG_SOUND=tone)
 same => n,Set(LEG_HZ=${{LEG_ARG}})
 same => n,Gosub(sound,1)
 same => n,Goto(next,1)
exten => silence,1,Set(LEG_SOUND=silence)
 same => n,Gosub(sound,1)
 same => n,Goto(next,1)
exten => sound,1,StopPlayTones()
 same => n,StopMusicOnHold()
 same => n,Goto(${{LEG_SOUND}})
 same => n(voice),StartMusicOnHold(${{LEG_VOICE}})
 same => n,Return()
 same => n(tone),PlayTones(${{LEG_HZ}})
 same => n,Return()
 same => n(silence),StartMusicOnHold(silence)
 same => n,Return()
exten => press,1,SendDTMF(${{LEG_ARG}},${{CUT(LEG_STEP,:,3)}},${{CUT(LEG_STEP,:,4)}})
 same => n,Goto(next,1)
exten => say,1,Playback(${{SOUNDS}}/${{LEG_ARG}})
 same => n,Gosub(sound,1)
 same => n,Goto(next,1)
exten => hangup,1,Set(LEG_BY=self)
 same => n,Hangup(${{LEG_ARG}})
exten => end,1,Set(LEG_BY=self)
 same => n,Hangup(16)
exten => limit,1,Set(LEG_BY=limit)
 same => n,Hangup(16)
exten => T,1,Goto(limit,1)

[ended]
exten => s,1,UserEvent(LegEnd,By: ${{LEG_BY}},SipCallId: ${{URIENCODE(${{CHANNEL(pjsip,call-id)}})}})
 same => n,Return()
"""


def render(plan: CarrierPlan, layout: CarrierLayout, *, modules_dir: Path, data_dir: Path, secret: str) -> None:
    """Write the carrier's configuration, 0600, below ``layout.etc``."""
    start, end = plan.rtp
    modules = (*_MODULES, *(_REGISTRAR if plan.accounts else ()), *(_SRTP if plan.tls else ()))
    places = {
        "astetcdir": layout.etc,
        "astmoddir": modules_dir,
        "astdatadir": data_dir,
        "astvarlibdir": layout.directory / "lib",
        "astdbdir": layout.directory / "lib",
        "astkeydir": layout.directory / "lib",
        "astspooldir": layout.directory / "spool",
        "astlogdir": layout.directory / "log",
        "astrundir": layout.run,
    }
    files = {
        "asterisk.conf": "[directories]\n"
        + "".join(f"{name} => {place}\n" for name, place in places.items())
        + "\n[options]\nverbose = 1\nlive_dangerously = no\nhideconnect = yes\nnocolor = yes\n"
        f"systemname = {plan.name}\ndefaultlanguage = en\ndumpcore = no\n",
        "modules.conf": "[modules]\nautoload=no\n"
        + "".join(f"{'require' if name in _ESSENTIAL else 'load'} = {name}.so\n" for name in modules),
        "logger.conf": "[general]\ndateformat=%F %T.%3q\n[logfiles]\nconsole => notice,warning,error\n"
        "messages => notice,warning,error\n",
        "manager.conf": "[general]\nenabled = yes\nwebenabled = no\ntimestampevents = yes\ndisplayconnects = no\n"
        f"bindaddr = {plan.address}\nport = {plan.manager_port}\n\n[{MANAGER_USER}]\nsecret = {secret}\n"
        "read = call,user,dtmf\nwrite = originate,call,command,system\nwritetimeout = 10000\n",
        "cdr.conf": "[general]\nenable=no\n",
        "cel.conf": "[general]\nenable=no\n",
        **dict.fromkeys(_EMPTY, ""),
        "indications.conf": "[general]\ncountry=us\n\n[us]\ndescription=United States\nringcadence=2000,4000\n"
        "dial=350+440\nbusy=480+620/500,0/500\nring=440+480/2000,0/4000\ncongestion=480+620/250,0/250\n",
        "rtp.conf": f"[general]\nrtpstart={start}\nrtpend={end}\nicesupport=no\nstrictrtp=no\n",
        "musiconhold.conf": "[general]\n"
        + "".join(
            f"[{name}]\nmode=files\ndirectory={layout.voices / name}\n\n" for name in ("caller", "phone", "silence")
        ),
        "pjsip.conf": _pjsip(plan),
        "extensions.conf": "[general]\nstatic=yes\nwriteprotect=yes\n\n"
        + _DIALPLAN.format(sounds=layout.sounds, heard=layout.heard),
    }
    for place in (layout.etc, layout.log.parent, layout.sounds, layout.heard, layout.run):
        place.mkdir(parents=True, exist_ok=True)
    for place in (layout.directory / "lib", layout.directory / "spool"):
        place.mkdir(exist_ok=True)
    for name, text in files.items():
        path = layout.etc / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(text)


def _pjsip(plan: CarrierPlan) -> str:
    common = f"""\
type=endpoint
context=phones
disallow=all
allow=ulaw,alaw
dtmf_mode=rfc4733
direct_media=no
trust_id_inbound=yes
media_address={plan.address}
bind_rtp_to_media_address=yes
rtp_symmetric=no
allow_subscribe=no
send_connected_line=no
timers=no
100rel=no
"""
    endpoint = f"{common}identify_by=ip\ntransport={'tls' if plan.tls else 'udp'}\n"
    if plan.tls is not None:
        endpoint += f"media_encryption={plan.tls.media}\n"
        if plan.tls.media == "dtls":
            endpoint += "dtls_auto_generate_cert=yes\ndtls_verify=fingerprint\ndtls_setup=actpass\n"
    return f"""\
[global]
type=global
user_agent=callrouter simulated carrier
taskprocessor_overload_trigger=pjsip_only
endpoint_identifier_order={"username,ip" if plan.accounts else "ip"}

[udp]
type=transport
protocol=udp
bind={plan.address}:{plan.sip_port}

{_tls(plan)}{_registrar(plan, common)}[server]
{endpoint}
; A caller who withholds the number, as RFC 3323 has it.
[withheld]
{endpoint}from_user=anonymous
from_domain=anonymous.invalid

; Whoever calls from this machine may ring the phones; nobody else can reach a loopback address.
[loopback]
type=identify
endpoint=server
match=127.0.0.0/8
"""


def _tls(plan: CarrierPlan) -> str:
    if plan.tls is None:
        return ""
    return f"""\
[tls]
type=transport
protocol=tls
bind={plan.address}:{plan.tls_port}
cert_file={plan.tls.certificate}
priv_key_file={plan.tls.key}
method=tlsv1_2

"""


def _registrar(plan: CarrierPlan, common: str) -> str:
    """Accounts are told by the user in From, and proved by digest. TCP too: there, nobody listening is told at once."""
    if not plan.accounts:
        return ""
    transport = f"[tcp]\ntype=transport\nprotocol=tcp\nbind={plan.address}:{plan.sip_port}\n\n"
    return transport + "".join(
        f"""\
[{user}]
{common}identify_by=username
auth={user}
aors={user}

[{user}]
type=auth
auth_type=digest
username={user}
password={password.replace(";", chr(92) + ";")}

[{user}]
type=aor
max_contacts=1
remove_existing=yes
default_expiration={REGISTRATION_SECONDS}
minimum_expiration={REGISTRATION_SECONDS}
maximum_expiration={REGISTRATION_SECONDS}

"""
        for user, password in plan.accounts.items()
    )
