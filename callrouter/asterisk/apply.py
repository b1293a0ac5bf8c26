"""Putting a configuration in place: all of our own directory, or only our part of somebody else's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from callrouter.asterisk.coexist import apply, plan_install
from callrouter.asterisk.install import AsteriskInstall
from callrouter.asterisk.render import make_directories, render, write_config
from callrouter.asterisk.secrets import load_secrets
from callrouter.asterisk.trunk_values import check_trunk
from callrouter.config import Settings
from callrouter.core.model import Trunk
from callrouter.errors import ConfigError

RELOADED = ("res_pjsip.so", "pbx_config.so")
"""What is reloaded for changed trunks; calls go on. ARI, AMI, RTP and ports need a restart of Asterisk."""


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
