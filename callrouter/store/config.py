"""The configuration in the database: everything there is to add, list, get, edit and remove.

All functions take a session of :meth:`callrouter.store.database.Database.session` and leave the commit to it.
``who`` is the person or program that changes something, ``why`` their reason; both stand in the audit log.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.snapshot import ConfigSnapshot
from callrouter.store.blocks import add_block, list_blocks, load_blocks, remove_block
from callrouter.store.changes import ConfigChange, config_version, list_changes, lock_config
from callrouter.store.companies import (
    add_campaign,
    add_company,
    campaign_value,
    edit_campaign,
    edit_company,
    get_campaign,
    get_company,
    list_campaigns,
    list_companies,
    remove_campaign,
    remove_company,
)
from callrouter.store.flows import (
    SavedVersion,
    UploadedPrompt,
    add_flow,
    add_prompt,
    check_flow,
    check_flows,
    edit_flow,
    edit_prompt,
    flow_versions,
    get_flow,
    get_flow_version,
    get_prompt,
    list_flows,
    list_prompts,
    read_flows,
    remove_flow,
    remove_prompt,
)
from callrouter.store.groups import add_group, edit_group, get_group, list_groups, remove_group
from callrouter.store.hours import load_overrides
from callrouter.store.models import CampaignRow, PromptRow
from callrouter.store.numbers import add_number, edit_number, get_number, list_numbers, remove_number
from callrouter.store.targets import add_target, edit_target, get_target, list_targets, remove_target
from callrouter.store.trunks import add_trunk, edit_trunk, get_trunk, list_trunks, remove_trunk

__all__ = [
    "ConfigChange",
    "ConfigSnapshot",
    "SavedVersion",
    "UploadedPrompt",
    "add_block",
    "add_campaign",
    "add_company",
    "add_flow",
    "add_group",
    "add_number",
    "add_prompt",
    "add_target",
    "add_trunk",
    "check_flow",
    "check_flows",
    "config_version",
    "edit_campaign",
    "edit_company",
    "edit_flow",
    "edit_group",
    "edit_number",
    "edit_prompt",
    "edit_target",
    "edit_trunk",
    "flow_versions",
    "get_campaign",
    "get_company",
    "get_flow",
    "get_flow_version",
    "get_group",
    "get_number",
    "get_prompt",
    "get_target",
    "get_trunk",
    "list_blocks",
    "list_campaigns",
    "list_changes",
    "list_companies",
    "list_flows",
    "list_groups",
    "list_numbers",
    "list_prompts",
    "list_targets",
    "list_trunks",
    "load_config",
    "lock_config",
    "read_flows",
    "remove_block",
    "remove_campaign",
    "remove_company",
    "remove_flow",
    "remove_group",
    "remove_number",
    "remove_prompt",
    "remove_target",
    "remove_trunk",
]


async def load_config(session: AsyncSession) -> ConfigSnapshot:
    """The whole configuration, in eight queries however much there is.

    The version is read first and again last: a change that commits in between makes it read anew, so the snapshot is
    always of one version, also where a transaction does not see one moment only (PostgreSQL's READ COMMITTED).
    """
    while True:
        version = await config_version(session)
        # Removed campaigns stay in: a call that began before the removal still names its campaign.
        campaigns = await session.scalars(select(CampaignRow).order_by(CampaignRow.id))
        snapshot = ConfigSnapshot(
            version=version,
            companies=tuple(await list_companies(session)),
            campaigns=tuple(campaign_value(row) for row in campaigns),
            trunks=tuple(await list_trunks(session)),
            targets=tuple(await list_targets(session)),
            groups=tuple(await list_groups(session)),
            numbers=tuple(await list_numbers(session)),
            flows=tuple(await list_flows(session)),
            blocks=await load_blocks(session),
            overrides=await load_overrides(session),
            prompts=tuple(
                (company_id, name, sha256)
                for company_id, name, sha256 in await session.execute(
                    select(PromptRow.company_id, PromptRow.name, PromptRow.sha256).order_by(PromptRow.id)
                )
            ),
        )
        if await config_version(session) == version:
            return snapshot
