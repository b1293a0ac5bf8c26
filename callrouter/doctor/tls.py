"""Checks of SIP over TLS: our certificate, whose certificates we take, the port. Only when a trunk uses it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from callrouter.asterisk.ports import Port
from callrouter.asterisk.tls import TlsFiles, read_certificate, tls_files
from callrouter.config import Settings
from callrouter.doctor.asterisk import port
from callrouter.doctor.business import trunks_of
from callrouter.doctor.finding import Check, fail, ok, warn
from callrouter.errors import CallrouterError

SOON = timedelta(days=30)


async def tls(settings: Settings) -> list[Check]:
    """Nothing when no trunk goes over TLS, or Asterisk's configuration is not ours."""
    try:
        trunks = await trunks_of(settings)
    except CallrouterError:
        return []  # the database's own check says so
    if settings.asterisk_etc or all(trunk.transport != "tls" for trunk in trunks):
        return []
    try:
        files = await asyncio.to_thread(tls_files, settings)
    except CallrouterError as exc:
        return [fail("tls", exc.message, mend=exc.hint)]
    found = [_certificate(settings, files), port(_port(settings))]
    if files.authorities is None:
        found.append(
            warn(
                "tls providers",
                "certificates of providers are not checked",
                cause="sip_tls_verify is off: who gets between you and the provider is not noticed",
                mend="sip_tls_ca = FILE with the provider's authority, and sip_tls_verify = true",
            )
        )
    return found


def _port(settings: Settings) -> Port:
    return Port("SIP over TLS", "sip_tls_port", settings.sip_bind, settings.sip_tls_port, udp=False)


def _certificate(settings: Settings, files: TlsFiles) -> Check:
    name = "tls certificate"
    until = read_certificate(files.certificate).not_valid_after_utc
    left = until - datetime.now(UTC)
    if left <= SOON:
        made = fail if left <= timedelta() else warn
        return made(
            name,
            f"{files.certificate} {'ended' if left <= timedelta() else 'ends'} on {until:%Y-%m-%d}",
            cause="it was not renewed, or sip_tls_certificate still names the old file",
            mend="renew it, then callrouter asterisk reload",
        )
    if not settings.sip_tls_certificate:
        return warn(
            name,
            f"{files.certificate} is self-signed",
            cause="no other is configured; a provider that checks it will not send calls over TLS",
            mend="set sip_tls_certificate and sip_tls_key (one of Let's Encrypt will do), then restart Asterisk",
        )
    return ok(name, f"{files.certificate}, until {until:%Y-%m-%d}")
