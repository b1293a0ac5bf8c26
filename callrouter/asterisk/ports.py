"""The ports our Asterisk listens on. A port that somebody else has is found out before Asterisk goes on without it."""

from __future__ import annotations

from typing import NamedTuple

from callrouter.asterisk.process import port_in_use
from callrouter.config import Settings
from callrouter.errors import ConflictError

__all__ = ["Port", "port_in_use", "require_free_ports", "wanted_ports"]


class Port(NamedTuple):
    """One port of the configuration."""

    title: str
    setting: str
    host: str
    number: int
    udp: bool

    @property
    def protocol(self) -> str:
        return "udp" if self.udp else "tcp"


def wanted_ports(settings: Settings) -> tuple[Port, ...]:
    """Every port that must be ours; those for audio are taken one by one while calls last."""
    return (
        Port("SIP", "sip_port", settings.sip_bind, settings.sip_port, udp=True),
        Port("SIP over TCP", "sip_port", settings.sip_bind, settings.sip_port, udp=False),
        Port("ARI", "ari_port", settings.ari_host, settings.ari_port, udp=False),
        Port("AMI", "ami_port", settings.ami_host, settings.ami_port, udp=False),
    )


def require_free_ports(settings: Settings) -> None:
    """Refuse to start an Asterisk that would lack a port; it would go on without, and take no calls.

    :raises ConflictError: names the port, and the setting to change
    """
    for port in wanted_ports(settings):
        if port_in_use(port.host, port.number, port.udp):
            raise ConflictError(
                f"port {port.number}/{port.protocol} at {port.host} is in use; {port.title} needs it",
                hint=f"callrouter doctor says by whom; stop that, or set another {port.setting}",
            )
