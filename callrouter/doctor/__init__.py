"""What ``callrouter doctor`` looks at. Each check is a function of its own that returns what it found, with the likely
cause and the command that mends it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from callrouter.config import Settings
from callrouter.doctor.finding import Check, State, fail, ok, warn
from callrouter.errors import CallrouterError

__all__ = ["Check", "State", "examine", "fail", "ok", "warn"]


async def examine(load: Callable[[], Settings], settings_file: Path | None = None) -> AsyncIterator[Check]:
    """All checks, in an order in which the first failure is likely the cause of later ones.

    :param load: reads the settings; what it raises is a finding too
    :param settings_file: for messages
    """
    from callrouter.doctor import asterisk, business, machine, outbound
    from callrouter.doctor.tls import tls

    yield machine.python()
    yield machine.zone_data()
    try:
        settings = load()
    except CallrouterError as exc:
        yield fail("settings", exc.message, mend=exc.hint)
        return
    yield machine.settings(settings_file)
    yield machine.home(settings)
    yield machine.disk(settings)
    yield machine.secrets(settings)
    yield machine.doors(settings)
    yield machine.recordings(settings)
    yield machine.speech(settings)
    yield await business.database(settings)
    yield await business.journal(settings)
    for check in await business.numbers(settings):
        yield check
    for check in await outbound.limits(settings):
        yield check
    yield asterisk.installed(settings)
    yield await asterisk.rendered(settings)
    for check in asterisk.ports(settings):
        yield check
    for check in await tls(settings):
        yield check
    ari = await asterisk.ari(settings)
    yield ari
    for check in await asterisk.manager(settings):
        yield check
    yield machine.server(settings)
