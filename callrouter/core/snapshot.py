"""The whole configuration as one value, as the store read it at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from callrouter.core.blocks import Block
from callrouter.core.model import (
    Campaign,
    Company,
    FlowVersion,
    HoursOverride,
    Target,
    TargetGroup,
    TrackingNumber,
    Trunk,
)


@dataclass(frozen=True, slots=True)
class ConfigSnapshot:
    """What routing is built from. ``version`` moves with every change."""

    version: int
    companies: tuple[Company, ...] = ()
    campaigns: tuple[Campaign, ...] = ()
    trunks: tuple[Trunk, ...] = ()
    targets: tuple[Target, ...] = ()
    numbers: tuple[TrackingNumber, ...] = ()
    flows: tuple[FlowVersion, ...] = ()
    """The newest version of each flow."""
    overrides: tuple[HoursOverride, ...] = ()
    """Of opening hours; some may be over."""
    prompts: tuple[tuple[str, str, str], ...] = ()
    """(company id, name, SHA-256) of each uploaded prompt."""
    blocks: tuple[Block, ...] = ()
    groups: tuple[TargetGroup, ...] = ()
