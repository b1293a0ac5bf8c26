"""Putting a configuration in place: all of our own directory, or only our part of somebody else's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from callrouter.asterisk.ami import Ami
from callrouter.asterisk.coexist import apply, plan_install
from callrouter.asterisk.install import AsteriskInstall
from callrouter.asterisk.modules import SRTP
from callrouter.asterisk.render import make_directories, render, write_config
from callrouter.asterisk.secrets import load_secrets
from callrouter.asterisk.trunk_values import check_trunk
from callrouter.config import Settings
from callrouter.core.model import MediaEncryption, Trunk
from callrouter.errors import ConfigError

RELOADED = ("res_pjsip.so", "pbx_config.so")
"""What is reloaded for changed trunks; calls go on. ARI, AMI, RTP and ports need a restart of Asterisk."""


async def reload(ami: Ami, trunks: Iterable[Trunk]) -> None:
    """Have Asterisk read what was put in place.

    :param trunks: that were; a module that the first of a kind needs is loaded
    :raises AmiError: Asterisk is not running, or refuses us
    """
    if any(trunk.media_encryption is not MediaEncryption.NONE for trunk in trunks):
        for name in SRTP.required:
            await ami.load(f"{name}.so")
    for module in RELOADED:
        await ami.reload(module)
    for registration in await ami.registrations():
        # A new password alone is no reason for Asterisk to try before its time.
        if registration.status == "Rejected":
            await ami.register(registration.name)


@dataclass(frozen=True, slots=True)
class Applied:
    """:param changed: whether any file is other than before
    :param left_out: (trunk, why) of those that could not be rendered
    """

    changed: bool
    left_out: tuple[tuple[str, str], ...] = ()


def put_in_place(settings: Settings, install: AsteriskInstall, trunks: Sequence[Trunk]) -> Applied:
    """Render, validate, write. One trunk that cannot be rendered does not keep the others out.

    :raises ConfigError: what was rendered does not hold together; what is in place stays
    """
    usable: list[Trunk] = []
    left_out: list[tuple[str, str]] = []
    for trunk in trunks:
        try:
            load_secrets(settings, [trunk])
            check_trunk(trunk, settings)
        except ConfigError as exc:
            left_out.append((trunk.name, f"{exc.message} ({exc.hint})" if exc.hint else exc.message))
        else:
            usable.append(trunk)
    secrets = load_secrets(settings, usable)
    if settings.asterisk_etc:
        changed = apply(plan_install(settings, install, settings.asterisk_etc_dir, usable, secrets))
    else:
        make_directories(settings)
        changed = write_config(render(settings, install, usable, secrets), settings.asterisk_etc_dir)
    return Applied(changed, tuple(left_out))
