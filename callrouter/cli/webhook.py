"""``callrouter webhook``"""

from __future__ import annotations

import click

from callrouter.cli import output
from callrouter.cli.context import App, pass_app
from callrouter.cli.lazy import Group


@click.group(cls=Group)
def webhook() -> None:
    """Web services that flows ask: what questions are signed with."""


@webhook.command(
    "secret",
    examples="""
callrouter webhook secret
callrouter webhook secret --show | ssh crm.example.com "cat > callrouter-secret"
callrouter webhook secret --new
""",
)
@click.option("--show", is_flag=True, help="Print it: for the service, which checks signatures with it.")
@click.option("--new", is_flag=True, help="Make a new one in its place. The server signs with it once it is restarted.")
@pass_app
def secret(app: App, show: bool, new: bool) -> None:
    """Say where the secret is kept that questions to web services are signed with; made when there is none yet."""
    from callrouter.asterisk.secrets import WEBHOOK_SECRET, renew_secret, webhook_secret

    settings = app.settings
    found = renew_secret(settings.secrets_dir, WEBHOOK_SECRET) if new else webhook_secret(settings)
    path = settings.secrets_dir / WEBHOOK_SECRET
    if app.json:
        output.emit({"path": path, "new": new, **({"secret": found.reveal()} if show else {})})
    elif show:
        output.say(found.reveal())
    else:
        output.say(f"{path}" + (": new; restart the server, and give it to the services" if new else ""))
