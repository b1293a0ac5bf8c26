"""``callrouter trunk``"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group
from callrouter.cli.options import changes_of, confirm, why_option, yes_option
from callrouter.core.trunks import SETUP_SECONDS, parse_rate, rate_text
from callrouter.errors import AsteriskError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.asterisk.presets import Preset
    from callrouter.core.model import Trunk
    from callrouter.doctor.finding import Check

CALLER_ID = ("pass-through", "tracking-number", "fixed")
DID_SOURCE = ("request-uri", "to-header")
MEDIA_ENCRYPTION = ("none", "sdes", "dtls")
NUMBER_FORMAT = ("e164", "e164-no-plus", "national", "international-00")
FIELDS = tuple(
    "preset host port transport match registers username codecs caller_id fixed_caller_id did_source number_format "  # noqa: SIM905
    "qualify_seconds country media_encryption secure_only trust_identity next_trunk setup_seconds rates".split()
)


@click.group(cls=Group)
def trunk() -> None:
    """Trunks: SIP connections to providers."""


def trunk_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The fields of a trunk. None of them has a default: what is not given is the preset's, or stays."""
    options = [
        click.option("--host", help="The provider's SIP host or address."),
        click.option("--port", type=click.IntRange(1, 65535)),
        click.option("--transport", type=click.Choice(["udp", "tcp", "tls"])),
        click.option("--match", multiple=True, metavar="NETWORK", help="Where its calls come from; may be repeated."),
        click.option("--registers/--no-registers", default=None, help="Register with the provider."),
        click.option("--username", help="For registration and for calls out."),
        click.option("--codecs", help="Best first: ulaw,alaw."),
        click.option("--caller-id", type=click.Choice(CALLER_ID), help="The number the business sees."),
        click.option("--fixed-caller-id", metavar="NUMBER", help="For --caller-id fixed."),
        click.option("--did-source", type=click.Choice(DID_SOURCE), help="Where it writes the number dialled."),
        click.option("--number-format", type=click.Choice(NUMBER_FORMAT), help="How it wants numbers written."),
        click.option("--qualify-seconds", type=click.IntRange(0, 3600), help="Between probes; 0: never."),
        click.option("--country", metavar="CC", help="Assumed for its numbers without +."),
        click.option("--media-encryption", type=click.Choice(MEDIA_ENCRYPTION), help="SRTP; sdes needs TLS."),
        click.option(
            "--secure-only/--no-secure-only", default=None, help="Refuse its calls when they come without TLS."
        ),
        click.option(
            "--trust-identity/--no-trust-identity",
            default=None,
            help="Believe its P-Asserted-Identity, Remote-Party-ID and verstat.",
        ),
        click.option("--next-trunk", metavar="NAME", help='Tried when this one fails; "": none.'),
        click.option(
            "--setup-seconds", type=click.FloatRange(*SETUP_SECONDS), help="Until a silent call goes to --next-trunk."
        ),
        click.option(
            "--rate",
            "rates",
            multiple=True,
            metavar="PREFIX=PRICE",
            help='Price of a minute, in the company\'s currency: +1=0.009; may be repeated; "": none.',
        ),
        click.option("--password", is_flag=True, help="Ask for its password (see trunk secret)."),
        click.option("--password-stdin", is_flag=True, help="Read its password from standard input."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of a trunk out of options."""
    found = {key: value for key, value in values.items() if value not in (None, ())}
    if "codecs" in found:
        found["codecs"] = tuple(part.strip() for part in found["codecs"].split(",") if part.strip())
    if "rates" in found:
        # A list: an empty one is given, too.
        found["rates"] = [parse_rate(text) for text in found["rates"] if text.strip()]
    return found


@trunk.command(
    "add",
    examples="""
callrouter trunk presets
callrouter trunk add main --preset twilio --host acme.pstn.twilio.com
callrouter trunk add voip --preset voip-ms --host atlanta1.voip.ms --username 123456 --password
""",
)
@click.argument("name")
@click.option("--preset", default="generic-ip", show_default=True, help="callrouter trunk presets lists them.")
@trunk_options
@why_option
@pass_app
def add(app: App, name: str, preset: str, password: bool, password_stdin: bool, why: str, **options: Any) -> None:
    """Add a trunk out of a preset; what is given takes precedence over it."""
    from callrouter.asterisk.presets import get_preset, trunk_from_preset
    from callrouter.asterisk.trunk_values import check_trunk
    from callrouter.store.config import add_trunk

    chosen = get_preset(preset)
    given = {"country": app.settings.country, **_given(options)}
    made = trunk_from_preset(name, chosen, **given)
    check_trunk(made, app.settings)
    secret = _ask_password(made, ask=password, stdin=password_stdin)
    fields = {key: getattr(made, key) for key in FIELDS}

    async def work(session: AsyncSession) -> Trunk:
        added = await add_trunk(session, name=name, **fields, who=app.who, why=why)
        if secret is not None:
            # Before the commit: who reads the trunk finds its password.
            _store(app, name, secret)
        return added

    added = app.write(work)
    if secret is None and added.username:
        output.warn(f"its password is not stored yet: callrouter trunk secret {name}")
    if not chosen.verified and not app.json:
        output.warn(f"preset {chosen.name}: {chosen.note}")
    output.changed(app, f"trunk {name} added", added)


def _ask_password(wanted: Trunk, *, ask: bool, stdin: bool) -> str | None:
    if stdin:
        return sys.stdin.read().rstrip("\r\n")
    if ask or (wanted.username and sys.stdin.isatty()):
        return str(click.prompt(f"Password of {wanted.username or wanted.name}", hide_input=True, err=True))
    return None


def _store(app: App, name: str, secret: str) -> None:
    from callrouter.asterisk.secrets import trunk_secret_name, write_secret

    write_secret(app.settings.secrets_dir, trunk_secret_name(name), secret)


@trunk.command("list", examples="callrouter trunk list")
@pass_app
def list_(app: App) -> None:
    """List the trunks, with what the running server knows of their state."""
    from callrouter.store.config import list_trunks

    found = app.read(list_trunks)
    states = (app.status or {}).get("ami", {}).get("trunks", {})
    if app.json:
        output.emit([{**output.plain(t), "state": states.get(t.name)} for t in found])
    elif not found:
        output.say("No trunks yet. Add one: callrouter trunk presets, then callrouter trunk add NAME --preset PRESET")
    else:
        output.table(
            ("name", "preset", "host", "transport", "registers", "caller id", "state"),
            [
                (
                    t.name,
                    t.preset,
                    f"{t.host}:{t.port}",
                    t.transport,
                    output.yes_no(t.registers),
                    t.caller_id,
                    state_words(states.get(t.name)),
                )
                for t in found
            ],
        )


def state_words(state: dict[str, Any] | None) -> str:
    """A trunk's state in status.json, in words."""
    if state is None:
        return "unknown"
    words = [str(state[key]) for key in ("registration", "contact") if state.get(key)]
    if state.get("rtt"):
        words.append(f"{float(state['rtt']) * 1000:.0f} ms")
    return ", ".join(words) or "unknown"


@trunk.command("show", examples="callrouter trunk show main")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show a trunk, without its password."""
    from callrouter.asterisk.secrets import trunk_secret_name
    from callrouter.store.config import get_trunk, list_targets

    found = app.read(lambda session: get_trunk(session, name))
    targets = [target.name for target in app.read(list_targets) if target.trunk == name]
    stored = (app.settings.secrets_dir / trunk_secret_name(name)).is_file()
    state = (app.status or {}).get("ami", {}).get("trunks", {}).get(name)
    if app.json:
        output.emit({**output.plain(found), "password_stored": stored, "targets": targets, "state": state})
        return
    output.fields(
        [
            ("name", found.name),
            ("preset", found.preset),
            ("host", f"{found.host}:{found.port} over {found.transport}"),
            ("audio", "in clear" if found.media_encryption == "none" else f"SRTP, {found.media_encryption}"),
            ("calls without TLS", "refused" if found.secure_only else "taken"),
            ("who calls", "as it asserts (P-Asserted-Identity)" if found.trust_identity else "as From says"),
            ("calls come from", ", ".join(found.match) or found.host),
            ("registers", output.yes_no(found.registers)),
            ("username", found.username),
            ("password", ("stored" if stored else "missing") if found.username else None),
            ("codecs", ", ".join(found.codecs) or f"{app.settings.codecs} (the setting)"),
            ("caller id", found.caller_id + (f" {found.fixed_caller_id}" if found.fixed_caller_id else "")),
            ("number dialled in", found.did_source),
            ("numbers out as", found.number_format),
            ("probed every", f"{found.qualify_seconds} s" if found.qualify_seconds else "never"),
            ("country", found.country),
            ("next trunk", f"{found.next_trunk}, after {found.setup_seconds:g} s" if found.next_trunk else "none"),
            ("a minute to", ", ".join(rate_text(rate) for rate in found.rates) or "not known"),
            ("targets", ", ".join(targets) or "none"),
            ("state", state_words(state)),
        ]
    )


@trunk.command(
    "edit",
    examples="""
callrouter trunk edit main --caller-id tracking-number
callrouter trunk edit voip --match 198.51.100.0/28 --match 198.51.100.64/28
callrouter trunk edit main --transport tls --media-encryption sdes --secure-only
callrouter trunk edit main --next-trunk voip --setup-seconds 3 --rate +1=0.009 --rate +44=0.012
""",
)
@click.argument("name")
@click.option("--preset", help="Only its name is kept: the values stay.")
@trunk_options
@why_option
@pass_app
def edit(app: App, name: str, password: bool, password_stdin: bool, why: str, **options: Any) -> None:
    """Change a trunk; only what is given changes, and no call is dropped."""
    from callrouter.store.config import edit_trunk, get_trunk

    before = app.read(lambda session: get_trunk(session, name))
    given = _given(options)
    secret = _ask_password(before, ask=True, stdin=password_stdin) if password or password_stdin else None
    if secret is not None:
        _store(app, name, secret)
        if not given:
            _reload(app, name)
            return
    changes = changes_of(given)
    after = app.write(lambda session: edit_trunk(session, name, changes, who=app.who, why=why))
    output.changed(app, f"trunk {name} changed", after)


@trunk.command("rm", examples="callrouter trunk rm voip --yes")
@click.argument("name")
@yes_option
@why_option
@pass_app
def rm(app: App, name: str, yes: bool, why: str) -> None:
    """Remove a trunk that no target is dialled through, and its password."""
    from callrouter.asterisk.secrets import trunk_secret_name
    from callrouter.store.config import get_trunk, remove_trunk

    app.read(lambda session: get_trunk(session, name))
    confirm(f"Remove trunk {name}?", yes=yes)
    app.write(lambda session: remove_trunk(session, name, who=app.who, why=why))
    (app.settings.secrets_dir / trunk_secret_name(name)).unlink(missing_ok=True)
    output.removed(app, f"trunk {name}")


@trunk.command("presets", examples="callrouter trunk presets\ncallrouter trunk presets twilio")
@click.argument("name", required=False)
@pass_app
def presets(app: App, name: str | None) -> None:
    """List the presets, or show what one sets and asks for."""
    from callrouter.asterisk.presets import get_preset, load_presets

    if name is None:
        found = load_presets()
        if app.json:
            output.emit([_preset_json(each) for each in found])
            return
        rows = [(p.name, p.title, str(p.checked), ", ".join(p.required)) for p in found]
        output.table(("preset", "provider", "last checked", "needs"), rows)
        return
    preset = get_preset(name)
    if app.json:
        output.emit(_preset_json(preset))
        return
    output.fields(
        [
            ("preset", preset.name),
            ("provider", preset.title),
            ("last checked", f"{preset.checked} against {preset.source}"),
            ("verified", output.yes_no(preset.verified)),
            *(
                (key.replace("_", " "), ", ".join(value) if isinstance(value, list) else value)
                for key, value in preset.trunk.items()
            ),
            *(
                (
                    f"--{v.name.replace('_', '-')}",
                    f"{v.prompt}, like {v.example}" + ("" if v.required else " (optional)"),
                )
                for v in preset.values
            ),
        ]
    )
    output.say()
    output.paragraph(preset.note)
    if preset.tls:
        output.say()
        output.paragraph(f"TLS and SRTP: {preset.tls}")


def _preset_json(preset: Preset) -> dict[str, Any]:
    return {**output.plain(preset), "checked": str(preset.checked)}


@trunk.command(
    "secret", examples='callrouter trunk secret voip\nprintf %s "$PASSWORD" | callrouter trunk secret voip --stdin'
)
@click.argument("name")
@click.option("--stdin", is_flag=True, help="Read it from standard input.")
@pass_app
def secret(app: App, name: str, stdin: bool) -> None:
    """Store a trunk's password, and put it in force. It is shown nowhere, and never on a command line."""
    from callrouter.store.config import get_trunk

    found = app.read(lambda session: get_trunk(session, name))
    if not found.username:
        raise InputError(f"trunk {name!r} has no user name", hint=f"callrouter trunk edit {name} --username NAME")
    if not stdin and not sys.stdin.isatty():
        raise InputError("there is no terminal to ask on", hint="add --stdin and pipe the password in")
    given = _ask_password(found, ask=True, stdin=stdin)
    _store(app, name, given or "")
    _reload(app, name)


def _reload(app: App, name: str) -> None:
    """Put a new password in force, if Asterisk runs."""
    from callrouter.cli.asterisk import reload_asterisk

    live = True
    try:
        reload_asterisk(app)
    except AsteriskError:
        live = False
    if app.json:
        output.emit({"trunk": name, "password_stored": True, "live": live})
    else:
        output.say(f"password of trunk {name} stored: " + ("in force" if live else "takes effect when Asterisk runs"))


@trunk.command("test", examples="callrouter trunk test main")
@click.argument("name")
@click.pass_context
@pass_app
def test(app: App, ctx: click.Context, name: str) -> None:
    """Say what Asterisk knows of a trunk: registration, reachability, the likely cause and what mends it."""
    from callrouter.cli.doctor import print_check
    from callrouter.cli.interrupt import run as run_to_end
    from callrouter.doctor.asterisk import open_ami
    from callrouter.doctor.trunks import trunk as look
    from callrouter.store.config import get_trunk

    found = app.read(lambda session: get_trunk(session, name))

    async def run() -> Check:
        async with open_ami(app.settings) as ami:
            return await look(app.settings, ami, found)

    with app.quiet():
        check = run_to_end(run)
    if app.json:
        output.emit(check)
    else:
        print_check(check)
    if check.state == "fail":
        ctx.exit(1)
