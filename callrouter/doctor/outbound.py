"""Checks of what may be dialled over trunks, and of the limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from callrouter.doctor.finding import Check, fail, ok, warn
from callrouter.doctor.server import fresh_status

if TYPE_CHECKING:
    from callrouter.config import Settings


async def limits(settings: Settings) -> list[Check]:
    """No limit keeps legs from being dialled, and every target may be dialled."""
    from callrouter.core.outbound import called, refused_number
    from callrouter.doctor.business import read
    from callrouter.errors import CallrouterError
    from callrouter.store.config import load_config

    found = [
        warn(
            "outbound",
            f"{alarm.get('company')}: {alarm.get('cap')} kept {alarm.get('count')} calls from being dialled",
            cause=str(alarm.get("reason")),
            mend=f"callrouter call list, then callrouter company edit {alarm.get('company')} --help",
        )
        for alarm in (fresh_status(settings) or {}).get("alarms") or []
    ]
    try:
        config = await read(settings, load_config)
    except CallrouterError:
        return found  # the database's own check says so
    companies = {company.id: company for company in config.companies}
    for target in config.targets:
        company = companies[target.company_id]
        if not target.number:
            continue
        refusal = refused_number(called(target.number), True, company.allowed_destinations)
        if refusal is not None:
            found.append(
                fail(
                    f"target {company.name}/{target.name}",
                    f"is never dialled: {refusal.reason}",
                    mend=f"callrouter target edit {company.name}/{target.name} --allow-premium, if it is meant",
                )
            )
    return found or [ok("outbound", "every target may be dialled, no limit is reached")]
