"""Checks of trunks: registered, reachable, and if not, why."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from callrouter.asterisk.log import messages_path, read_log
from callrouter.config import Settings
from callrouter.doctor.finding import Check, fail, ok, warn

if TYPE_CHECKING:
    from callrouter.asterisk.ami import Ami
    from callrouter.core.model import Trunk

LOG_BYTES = 1_000_000
"""How far back Asterisk's log is read."""
_REGISTRATION = re.compile(r"(.*) on registration attempt to '([^']*)'")
_TRANSPORT = re.compile(r"Transport '[^']*' to remote '([^']*)' - \S+ - (.+)")
_STATUS = re.compile(r"(?:^|response )'(\d{3})'")


async def trunk(settings: Settings, ami: Ami, wanted: Trunk) -> Check:
    """What Asterisk says of a trunk."""
    name, endpoint = f"trunk {wanted.name}", f"trunk-{wanted.name}"
    if endpoint not in await ami.endpoints():
        return fail(
            name,
            "Asterisk does not know it",
            cause="its configuration was rendered before the trunk was added",
            mend="callrouter asterisk reload",
        )
    said: list[str] = []
    log = messages_path(settings)
    if wanted.registers:
        found = next((r for r in await ami.registrations() if r.name == endpoint), None)
        if found is None or found.status != "Registered":
            if refused := await asyncio.to_thread(_certificate, name, wanted, log):
                return refused
            answer = await asyncio.to_thread(last_answer, log, found.client_uri if found else "")
            status = found.status if found else "unknown"
            return await asyncio.to_thread(_unregistered, name, wanted, status, answer)
        said.append("registered")
    if wanted.qualify_seconds:
        contacts = await ami.contacts([endpoint])
        best = next((c for c in contacts if c.status == "Reachable"), None)
        if best is not None:
            said.append(f"reachable, {best.rtt * 1000:.0f} ms" if best.rtt else "reachable")
        else:
            if refused := await asyncio.to_thread(_certificate, name, wanted, log):
                return refused
            status = contacts[0].status if contacts else "unknown"
            return await asyncio.to_thread(_unreachable, name, wanted, status)
    else:
        said.append("not probed (qualify-seconds 0)")
    return ok(name, ", ".join(said))


def last_answer(log: Path, client_uri: str) -> int | None:
    """The last answer to a REGISTER that was no success, out of Asterisk's log: its manager interface does not tell.

    :param client_uri: whom we registered as
    :returns: SIP status; 0: there was no answer; None: the log says nothing
    """
    for said in reversed(_said(log, "res_pjsip_outbound_registration.c")):
        found = _REGISTRATION.match(said)
        if found is not None and found[2] == client_uri:
            status = _STATUS.search(found[1])
            return int(status[1]) if status else 0
    return None


def certificate_fault(log: Path, host: str) -> str | None:
    """What was wrong with the certificate that a host showed when we last connected to it over TLS; None: nothing."""
    for said in reversed(_said(log, "pjsip_transport_events.c")):
        found = _TRANSPORT.match(said)
        if found is not None and found[1] == host:
            return None if found[2].strip() == "OK" else found[2].strip()
    return None


def _said(log: Path, source: str) -> list[str]:
    """What one of Asterisk's source files said lately, oldest first."""
    try:
        start = max(0, log.stat().st_size - LOG_BYTES)
        return [line.message for line in read_log(log, start) if Path(line.file).name == source]
    except OSError:
        return []


def _resolves(trunk: Trunk) -> bool:
    try:
        socket.getaddrinfo(trunk.host, trunk.port)
    except OSError:
        return False
    return True


def _certificate(name: str, trunk: Trunk, log: Path) -> Check | None:
    fault = certificate_fault(log, trunk.host) if trunk.transport == "tls" else None
    if fault is None:
        return None
    return fail(
        name,
        f"no connection to {trunk.host} over TLS: {fault[0].lower()}{fault[1:]}",
        cause="its certificate is signed by an authority of its own, has expired, or is in another name",
        mend="set sip_tls_ca to the provider's authority; trunk edit --host to the name in its certificate; "
        "sip_tls_verify = false takes any",
    )


def _unregistered(name: str, trunk: Trunk, status: str, answer: int | None) -> Check:
    """
    :param status: Asterisk's word. It says Rejected of a registrar that is away, too
    :param answer: see :func:`last_answer`
    """
    if not _resolves(trunk):
        return _unknown_host(name, trunk)
    if status == "Unregistered":
        return fail(
            name,
            f"not registered with {trunk.host} yet",
            cause="Asterisk asks some seconds after its start or a change, and waits half a minute for an answer",
            mend=f"callrouter trunk test {trunk.name} again in a moment",
        )
    if status == "Rejected" and (answer is None or (400 <= answer < 500 and answer not in (408, 480))):
        return fail(
            name,
            f"{trunk.host} rejects our registration as {trunk.username}" + (f" ({answer})" if answer else ""),
            cause="wrong user name or password",
            mend=f"callrouter trunk secret {trunk.name}, or callrouter trunk edit {trunk.name} --username NAME",
        )
    return fail(
        name,
        f"not registered with {trunk.host}: " + (f"it answers {answer}" if answer else "it does not answer"),
        cause="an outage of theirs, a firewall, another port or transport",
        mend=f"callrouter trunk edit {trunk.name} --port N --transport udp|tcp|tls; sip_bind must reach the internet",
    )


def _unreachable(name: str, trunk: Trunk, status: str) -> Check:
    if not _resolves(trunk):
        return _unknown_host(name, trunk)
    return warn(
        name,
        f"{trunk.host}:{trunk.port} does not answer OPTIONS ({status})",
        cause="a firewall, another port or transport, a provider that never answers them, or it was not asked yet",
        mend=f"callrouter trunk edit {trunk.name} --qualify-seconds 0 if calls work all the same",
    )


def _unknown_host(name: str, trunk: Trunk) -> Check:
    return fail(
        name,
        f"{trunk.host} has no address",
        cause="a slip in the host name, or no name server answers",
        mend=f"callrouter trunk edit {trunk.name} --host HOST",
    )
