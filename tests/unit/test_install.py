"""Finding an Asterisk: stand-in executables that print a version, laid out as the real ones are."""

from __future__ import annotations

from pathlib import Path

import pytest

from callrouter.asterisk.install import advisory, cache_dir, find_asterisk, parse_version
from callrouter.config import Settings
from callrouter.errors import AsteriskError


@pytest.fixture(autouse=True)
def nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CALLROUTER_CACHE", str(tmp_path / "cache"))
    # Beside the PATH, two fixed directories are searched; a real Asterisk there must not be found by these tests.
    monkeypatch.setattr("callrouter.asterisk.install.SYSTEM_DIRS", (str(tmp_path / "sbin"),))
    monkeypatch.setattr("callrouter.asterisk.install.SYSTEM_ROOTS", (tmp_path,))
    monkeypatch.setattr("callrouter.asterisk.install.SYSTEM_CONF", tmp_path / "etc/asterisk.conf")


def executable(path: Path, version: str, status: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{version}'\nexit {status}\n")
    path.chmod(0o755)
    return path


def module(directory: Path, *names: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("res_ari.so", *names):
        (directory / name).touch()


def system(tmp_path: Path, version: str) -> Path:
    module(tmp_path / "usr/lib/asterisk/modules")
    return executable(tmp_path / "bin/asterisk", version)


def extracted(root: Path, version: str) -> Path:
    module(root / "usr/lib/x86_64-linux-gnu/asterisk/modules", "app_stasis.so")
    return executable(root / "usr/sbin/asterisk", version)


@pytest.mark.parametrize(
    "text, version",
    [
        ("Asterisk 22.10.1+dfsg+~cs6.17.60671434-1", (22, 10, 1)),
        ("Asterisk 20.6.0~dfsg+~cs6.13.40431414-2build5\n", (20, 6, 0)),
        ("Asterisk 22.0", (22, 0, 0)),
        ("Asterisk certified/20.7-cert4", (20, 7, 0)),
        ("Asterisk certified-22.8-cert1", (22, 8, 0)),
    ],
)
def test_version_is_read_from_what_asterisk_prints(text: str, version: tuple[int, int, int]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "FreeSWITCH version: 1.10", "Asterisk GIT-master-abc"])
def test_text_without_a_version_is_an_error(text: str) -> None:
    with pytest.raises(AsteriskError, match="no Asterisk version"):
        parse_version(text)


def test_advice_depends_on_the_version() -> None:
    assert "too old" in (advisory((18, 26, 4)) or "")
    assert "22.10.1 or newer is advised" in (advisory((22, 10, 0)) or "")
    assert "22.10.1 or newer is advised" in (advisory((20, 6, 0)) or "")
    assert advisory((22, 10, 1)) is None
    assert advisory((23, 0, 0)) is None


def test_the_configured_prefix_comes_first(tmp_path: Path) -> None:
    system(tmp_path, "Asterisk 22.10.1")
    binary = extracted(tmp_path / "mine", "Asterisk 20.9.0")
    install = find_asterisk(Settings(asterisk_prefix=str(tmp_path / "mine")))
    assert install.binary == binary
    assert install.prefix == tmp_path / "mine"
    assert install.version == (20, 9, 0)
    assert install.data_dir == tmp_path / "mine/usr/share/asterisk"
    assert install.command("-V") == [str(binary), "-V"]


def test_a_build_with_its_own_prefix_is_understood(tmp_path: Path) -> None:
    executable(tmp_path / "opt/sbin/asterisk", "Asterisk 23.1.0")
    install = find_asterisk(Settings(asterisk_prefix=str(tmp_path / "opt")))
    assert install.modules_dir == tmp_path / "opt/lib/asterisk/modules"
    assert install.data_dir == tmp_path / "opt/var/lib/asterisk"


def test_modules_are_found_with_and_without_suffix(tmp_path: Path) -> None:
    extracted(tmp_path / "mine", "Asterisk 22.10.1")
    install = find_asterisk(Settings(asterisk_prefix=str(tmp_path / "mine")))
    assert install.has_module("app_stasis")
    assert install.has_module("app_stasis.so")
    assert not install.has_module("chan_sip")


def test_an_extracted_one_runs_through_its_own_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "mine"
    binary = extracted(root, "never asked directly")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    loader = executable(root / "usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1", "Asterisk 22.10.1")
    install = find_asterisk(Settings(asterisk_prefix=str(root)))
    assert install.command("-f") == [str(loader), "--library-path", str(loader.parent), str(binary), "-f"]


def test_the_system_comes_before_the_cache(tmp_path: Path) -> None:
    binary = system(tmp_path, "Asterisk 22.10.1")
    extracted(cache_dir() / "asterisk-forky", "Asterisk 22.10.1")
    install = find_asterisk(Settings())
    assert install.binary == binary
    assert install.prefix is None
    assert install.modules_dir == tmp_path / "usr/lib/asterisk/modules"


def test_the_directories_of_its_own_configuration_count(tmp_path: Path) -> None:
    system(tmp_path, "Asterisk 22.10.1")
    module(tmp_path / "srv/modules")
    (tmp_path / "srv/data").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/asterisk.conf").write_text(
        f"[directories](!)\nastmoddir => {tmp_path}/srv/modules ; ours\nastdatadir = {tmp_path}/srv/data\n"
    )
    install = find_asterisk(Settings())
    assert install.modules_dir == tmp_path / "srv/modules"
    assert install.data_dir == tmp_path / "srv/data"


@pytest.mark.parametrize("answer", ["Asterisk 18.10.0", "Segmentation fault"])
def test_a_system_one_that_will_not_do_gives_way_to_the_cache(tmp_path: Path, answer: str) -> None:
    system(tmp_path, answer)
    binary = extracted(cache_dir() / "asterisk-forky", "Asterisk 22.10.1")
    assert find_asterisk(Settings()).binary == binary


def test_none_at_all_names_where_it_looked_and_what_to_do() -> None:
    with pytest.raises(AsteriskError, match=r"(?s)the system: none; .*asterisk-forky: none") as failure:
        find_asterisk(Settings())
    assert "./dev setup" in (failure.value.hint or "")


def test_one_that_is_too_old_is_named(tmp_path: Path) -> None:
    system(tmp_path, "Asterisk 18.10.0~dfsg")
    with pytest.raises(AsteriskError, match=r"bin/asterisk is 18\.10\.0, too old"):
        find_asterisk(Settings())


def test_a_prefix_with_nothing_in_it_is_an_error_even_when_others_exist(tmp_path: Path) -> None:
    system(tmp_path, "Asterisk 22.10.1")
    with pytest.raises(AsteriskError, match="there is no Asterisk in"):
        find_asterisk(Settings(asterisk_prefix=str(tmp_path / "empty")))


def test_a_prefix_that_is_too_old_is_an_error(tmp_path: Path) -> None:
    extracted(tmp_path / "old", "Asterisk 16.28.0")
    with pytest.raises(AsteriskError, match=r"16\.28\.0 is too old"):
        find_asterisk(Settings(asterisk_prefix=str(tmp_path / "old")))


def test_one_that_fails_to_run_says_why(tmp_path: Path) -> None:
    extracted(tmp_path / "mine", "libjansson.so.4: cannot open shared object file").write_text(
        "#!/bin/sh\necho 'libjansson.so.4: cannot open shared object file' >&2\nexit 127\n"
    )
    with pytest.raises(AsteriskError, match=r"does not run: libjansson\.so\.4"):
        find_asterisk(Settings(asterisk_prefix=str(tmp_path / "mine")))


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("CALLROUTER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg/callrouter"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    assert cache_dir() == tmp_path / "user/.cache/callrouter"
