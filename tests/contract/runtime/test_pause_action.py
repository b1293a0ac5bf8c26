"""A pause is asked of the manager interface; what it says comes back as a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from callrouter.asterisk.ari import AriClient
from callrouter.core import actions as a
from callrouter.errors import AmiError
from callrouter.media.prompts import PromptLibrary
from callrouter.runtime.executor import DONE, Executor, Outcome
from tests.contract.runtime.test_executor import ari, asterisk, library

__all__ = ["ari", "asterisk", "library"]


@pytest.mark.parametrize(
    "answer,outcome",
    [(True, DONE), (False, Outcome("gone", gone=True)), (AmiError("AMI is away"), Outcome("AMI is away"))],
)
async def test_a_pause(ari: AriClient, library: PromptLibrary, answer: bool | AmiError, outcome: Outcome) -> None:
    asked: list[tuple[str, bool]] = []

    async def mute(channel: str, on: bool) -> bool:
        asked.append((channel, on))
        if isinstance(answer, AmiError):
            raise answer
        return answer

    executor = Executor(ari, "callrouter", library, Path("/spool"), 60, mute)
    assert await executor.perform("1760000000.1", "company-1", a.PauseRecording("c-l1", on=True)) == outcome
    assert asked == [("1760000000.1", True)]


async def test_without_a_manager_interface_nothing_is_paused(ari: AriClient, library: PromptLibrary) -> None:
    executor = Executor(ari, "callrouter", library, Path("/spool"), 60)
    outcome = await executor.perform("1760000000.1", "company-1", a.PauseRecording("c-l1", on=True))
    assert outcome.problem
