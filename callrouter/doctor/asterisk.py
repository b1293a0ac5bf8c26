"""Checks of Asterisk: which one, its configuration, its ports, its doors for us, the trunks."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from callrouter.asterisk.ports import Port, port_in_use, wanted_ports
from callrouter.config import Settings
from callrouter.doctor.business import trunks_of
from callrouter.doctor.finding import Check, fail, ok, warn
from callrouter.doctor.ports import owner
from callrouter.doctor.trunks import trunk
from callrouter.errors import AmiError, AriError, CallrouterError, ConfigError

if TYPE_CHECKING:
    from callrouter.asterisk.ami import Ami

START = "callrouter up, or callrouter asterisk run"


def installed(settings: Settings) -> Check:
    """There is an Asterisk that we can run, recent enough."""
    from callrouter.asterisk.install import advisory, find_asterisk

    try:
        found = find_asterisk(settings)
    except CallrouterError as exc:
        return fail("asterisk", exc.message, mend=exc.hint)
    advice = advisory(found.version)
    if advice:
        return warn("asterisk", advice, mend="./dev setup provides Asterisk 22")
    return ok("asterisk", f"{found.version_text}, {found.binary}")


async def rendered(settings: Settings) -> Check:
    """Asterisk's configuration is what settings and database make of it now."""
    from callrouter.asterisk.install import find_asterisk
    from callrouter.asterisk.render import render
    from callrouter.asterisk.secrets import load_secrets
    from callrouter.asterisk.validate import validate

    name = "configuration"
    if not (settings.secrets_dir / "ari-password").exists():
        return fail(name, "it cannot be rendered before there are passwords", mend="callrouter init")
    if settings.asterisk_etc:
        return ok(name, f"{settings.asterisk_etc} is your own Asterisk's: callrouter asterisk render --check compares")
    try:
        trunks = await trunks_of(settings)
        files = render(settings, find_asterisk(settings), trunks, load_secrets(settings, trunks))
        validate(files)
    except CallrouterError as exc:
        return fail(name, exc.message, mend=exc.hint)
    stale = changed_files(settings, files)
    if stale is None:
        return fail(name, f"{settings.asterisk_etc_dir} was not rendered yet", mend="callrouter asterisk render")
    if stale:
        return warn(
            name,
            f"{', '.join(stale)} in {settings.asterisk_etc_dir} is not what would be rendered now",
            cause="settings or trunks were changed, or the file was edited by hand",
            mend="callrouter asterisk reload",
        )
    return ok(name, f"{settings.asterisk_etc_dir} is up to date")


def changed_files(settings: Settings, files: dict[str, str]) -> list[str] | None:
    """Names of files that differ from what is in place; None when nothing is."""
    directory = settings.asterisk_etc_dir
    if not (directory / "asterisk.conf").is_file():
        return None
    stale = []
    for name, text in files.items():
        try:
            same = (directory / name).read_text("utf-8") == text
        except (OSError, UnicodeDecodeError):
            same = False
        if not same:
            stale.append(name)
    return sorted(stale)


def ports(settings: Settings) -> list[Check]:
    """Our ports are free, or Asterisk has them."""
    return [port(each) for each in wanted_ports(settings)]


def port(wanted: Port) -> Check:
    """One port: free, Asterisk's, or somebody else's."""
    title, setting, host, number, udp = wanted
    name = f"port {number}/{wanted.protocol}"
    try:
        ip_address(host)
        used = port_in_use(host, number, udp)
    except ValueError:
        return fail(name, f"{host!r} is no IP address", mend=f"set {setting.partition('_')[0]}_bind or _host")
    except ConfigError as exc:
        return fail(
            name, f"{title}: {exc.message}", mend="set an address that this machine has, or run as a user who may"
        )
    if not used:
        return ok(name, f"{title}: free")
    who = owner(number, udp=udp)
    if who is None:
        return ok(name, f"{title}: in use, by a process of another user")
    command, pid = who
    if any(word.rpartition("/")[2] == "asterisk" for word in command.split()):
        return ok(name, f"{title}: Asterisk (pid {pid})")
    return fail(
        name,
        f"{title}: used by {command[:60]} (pid {pid})",
        cause="another program has the port that Asterisk needs",
        mend=f"stop it, or set another {setting}",
    )


async def ari(settings: Settings) -> Check:
    """Asterisk's REST interface answers, and takes our password."""
    from callrouter.asterisk.ari import AriClient
    from callrouter.asterisk.install import advisory, parse_version
    from callrouter.asterisk.secrets import read_secret

    where = f"{settings.ari_host}:{settings.ari_port}"
    try:
        password = read_secret(settings.secrets_dir, "ari-password").reveal()
        async with AriClient(f"http://{where}", settings.ari_user, password, timeout=3.0) as client:
            info = await client.info()
    except AriError as exc:
        if exc.status in (401, 403):
            return fail(
                "ari",
                f"Asterisk at {where} refuses our password",
                cause="it runs on an older configuration, or is not ours",
                mend="callrouter asterisk render, then restart Asterisk",
            )
        if exc.status:
            return fail("ari", exc.message, cause="what answers there may not be Asterisk's ARI", mend="set ari_port")
        return fail("ari", f"nothing answers at {where}", cause="Asterisk is not running", mend=START)
    except CallrouterError as exc:
        return fail("ari", exc.message, mend=exc.hint)
    try:
        advice = advisory(parse_version(f"Asterisk {info.version}"))
    except CallrouterError:
        advice = None
    if advice:
        return warn("ari", f"{where}: {advice}", mend="./dev setup provides Asterisk 22")
    return ok("ari", f"Asterisk {info.version} at {where}")


async def manager(settings: Settings) -> list[Check]:
    """Asterisk's manager interface answers, and takes our password; with it, the state of each trunk."""
    try:
        trunks = await trunks_of(settings)
    except CallrouterError:
        trunks = []
    try:
        async with open_ami(settings) as ami:
            where = f"{settings.ami_host}:{settings.ami_port}"
            return [ok("ami", f"logged in at {where}"), *[await trunk(settings, ami, each) for each in trunks]]
    except AmiError as exc:
        return [ami_failure(settings, exc)]
    except CallrouterError as exc:
        return [fail("ami", exc.message, mend=exc.hint)]


def open_ami(settings: Settings) -> Ami:
    """:raises ConfigError: there is no password yet"""
    from callrouter.asterisk.ami import Ami
    from callrouter.asterisk.secrets import read_secret

    password = read_secret(settings.secrets_dir, "ami-password").reveal()
    return Ami(settings.ami_host, settings.ami_port, settings.ami_user, password, action_timeout=3.0)


def ami_failure(settings: Settings, exc: AmiError) -> Check:
    """Why the manager interface could not be used: a wrong password told apart from nobody there."""
    from callrouter.asterisk.ami import PASSWORD_HINT

    where = f"{settings.ami_host}:{settings.ami_port}"
    if exc.hint == PASSWORD_HINT:
        return fail(
            "ami",
            f"Asterisk at {where} refuses our password",
            cause="it runs on an older configuration, or is not ours",
            mend="callrouter asterisk render, then restart Asterisk",
        )
    return fail("ami", exc.message, cause="Asterisk is not running, or its manager is off", mend=START)
