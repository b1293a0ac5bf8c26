"""The checkout's own tools: ./dev, the scripts, lock files, container and service files."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    *("dev", ".ci/run", "docker/build-venv", "docker/init", "docker/install-packages"),
    *("scripts/check-text", "scripts/provision-asterisk", "scripts/test-pythons"),
]
LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-build.lock"]
UNITS = sorted((ROOT / "systemd").glob("*.service"))
PROVISION = str(ROOT / "scripts/provision-asterisk")


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def compose() -> dict:
    return yaml.safe_load(text("docker-compose.yml"))


def pins(name: str) -> dict[str, str]:
    """Package name (normalised) to its whole entry."""
    entries = re.split(r"\n(?=\S)", "\n".join(line for line in text(name).splitlines() if not line.startswith("#")))
    return {re.sub(r"[-_.]+", "-", entry.split("==")[0]).lower(): entry for entry in entries if "==" in entry}


# -- the package -------------------------------------------------------------------------------------------------------


def test_a_wheel_holds_what_a_checkout_finds_beside_it(tmp_path: Path) -> None:
    build = "import hatchling.build as b, sys; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        wheel.extractall(tmp_path / "site")
    program = """
from callrouter.asterisk import render
from callrouter.resources import resource_dir
from callrouter.store.migrate import directory
finders = [resource_dir, getattr(render, "_source_dir", resource_dir)]
for place in [directory(), *(find(name) for find in finders for name in ("asterisk-conf", "dialplans"))]:
    assert place.is_dir() and any(place.iterdir()), place
    print(place)
"""
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    for line in found.stdout.splitlines():
        assert line.startswith(str(tmp_path / "site/callrouter/")), line


# -- scripts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_can_be_run(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    shebang = text(name).splitlines()[0]
    if "bash" in shebang or shebang.endswith("/sh"):
        subprocess.run([shebang.split("/")[-1].split()[-1], "-n", str(ROOT / name)], check=True)


def test_no_bash_script_forgets_to_stop_at_errors() -> None:
    for name in SCRIPTS:
        if text(name).startswith("#!/usr/bin/env bash"):
            assert "\nset -euo pipefail\n" in text(name), name


def test_help_names_every_command_of_dev() -> None:
    shown = subprocess.run([str(ROOT / "dev"), "help"], capture_output=True, text=True, check=True).stdout
    handled = re.findall(r"^([a-z]+)\)", text("dev"), re.MULTILINE)
    assert len(handled) >= 9
    for command in handled:
        assert re.search(rf"^  {command}\b", shown, re.MULTILINE), command


def test_an_unknown_command_is_bad_usage() -> None:
    done = subprocess.run([str(ROOT / "dev"), "frobnicate"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no command frobnicate" in done.stderr


def test_ci_runs_what_the_readme_says() -> None:
    assert text(".ci/run").rstrip().endswith("exec ./dev test")


# -- lock files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_hashes_and_no_place_of_its_own(name: str) -> None:
    entries = pins(name)
    assert entries
    for package, entry in entries.items():
        assert "--hash=sha256:" in entry, package
    assert not re.search(r"://|--index-url|--find-links|file:| /\w", text(name))


def test_locks_hold_every_declared_dependency() -> None:
    project = tomllib.loads(text("pyproject.toml"))

    def names(requirements: list) -> set[str]:
        plain = (one for one in requirements if isinstance(one, str))
        return {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", one)[0]).lower() for one in plain}

    wanted = names(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        wanted |= names(extra)
    groups = project["dependency-groups"]
    assert wanted <= set(pins("requirements.lock"))
    assert wanted | names(groups["dev"]) | names(groups["build"]) <= set(pins("requirements-dev.lock"))
    assert names(groups["build"]) <= set(pins("requirements-build.lock"))
    assert names(project["build-system"]["requires"]) <= set(pins("requirements-build.lock"))


def test_locks_agree_on_versions() -> None:
    small, whole = pins("requirements.lock"), pins("requirements-dev.lock")
    for package in small:
        assert small[package].split(" \\")[0] == whole[package].split(" \\")[0]


# -- container and service files ---------------------------------------------------------------------------------------


def our_commands() -> list[list[str]]:
    """Every command line of callrouter's that a container or service file relies on."""
    found = []
    for service in compose()["services"].values():
        found += [service["command"], service.get("healthcheck", {}).get("test", [])[1:]]
    found += [line.split() for line in text("docker/init").splitlines()]
    for unit in UNITS:
        found += [
            line.split() for line in re.findall(r"^ExecStart=\S*/(callrouter .+)$", unit.read_text(), re.MULTILINE)
        ]
    return [list(one) for one in sorted({tuple(words[1:]) for words in found if words and words[0] == "callrouter"})]


@pytest.mark.parametrize("words", our_commands(), ids=" ".join)
def test_commands_in_container_and_service_files_exist(words: list[str]) -> None:
    program = Path(sys.executable).parent / "callrouter"
    done = subprocess.run([str(program), *words, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_containers_are_confined() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service, name
        assert "home:/var/lib/callrouter" in service["volumes"], name
        assert "recordings:/var/lib/callrouter/recordings" in service["volumes"], name
        if name != "init":
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] == "CMD", name
            assert "stop_grace_period" in service, name


def test_containers_listen_on_loopback_unless_told() -> None:
    for service in compose()["services"].values():
        for key, value in service.get("environment", {}).items():
            if key.endswith(("_BIND", "_HOST")):
                assert value.endswith(":-127.0.0.1}"), key


def test_container_settings_are_settings() -> None:
    from callrouter.config import Settings

    for service in compose()["services"].values():
        for key in service.get("environment", {}):
            assert key.removeprefix("CALLROUTER_").lower() in Settings.__struct_fields__


def test_images_are_built_by_the_same_scripts_and_locks_and_run_without_root() -> None:
    dockerfile = text("docker/Dockerfile")
    assert "provision-asterisk --system" in dockerfile
    assert "requirements.lock" in dockerfile
    assert "--require-hashes" in text("docker/build-venv")
    stages = re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[1:]
    targets = {stage.splitlines()[0].split(" AS ")[1]: stage for stage in stages}
    for service in compose()["services"].values():
        stage = targets[service["build"]["target"]]
        assert re.findall(r"^USER (\w+)", stage, re.MULTILINE)[-1] == "callrouter"
        assert "HEALTHCHECK" in stage
    ignored = text(".dockerignore").splitlines()
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        for path in source.split():
            assert f"!{path.split('/')[0]}" in ignored, path


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_services_are_confined_and_come_back(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    for wanted in (
        *("User=callrouter", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes"),
        *("CapabilityBoundingSet=", "SystemCallFilter=@system-service", "Restart=always", "StateDirectory=callrouter"),
        *("PrivateDevices=yes", "PrivateMounts=yes", "RemoveIPC=yes", "RestrictNamespaces=yes", "LockPersonality=yes"),
        *("ProtectKernelTunables=yes", "ProtectKernelModules=yes", "ProtectKernelLogs=yes", "ProtectControlGroups=yes"),
        *("RestrictSUIDSGID=yes", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "AmbientCapabilities="),
    ):
        assert wanted in lines, wanted


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="the lines themselves are looked at above")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_finds_little_exposure(unit: Path) -> None:
    """Of ten; what is left is that a telephone server needs a network."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_server_is_watched() -> None:
    lines = text("systemd/callrouter.service").splitlines()
    assert "Type=notify" in lines
    assert "WatchdogSec=10" in lines


# -- provisioning, with a stand-in for mmdebstrap ----------------------------------------------------------------------

EXPIRED = "E: Release file for http://example.invalid/dists/forky/InRelease is expired (invalid since 15d)."


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """An environment whose mmdebstrap is STANDIN (a shell script the test writes), with a cache of its own."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "keyring.gpg").touch()
    return {
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "CALLROUTER_CACHE": str(tmp_path / "cache"),
        "CALLROUTER_DEBIAN_KEYRING": str(tmp_path / "keyring.gpg"),
    }


def stand_in(tmp_path: Path, script: str) -> None:
    path = tmp_path / "bin/mmdebstrap"
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{tmp_path}/arguments\n{script}\n")
    path.chmod(0o755)


def tree(tmp_path: Path, version: str = "22.10.1") -> Path:
    """A tar of a tree with an executable that says it is that version."""
    root = tmp_path / "tree"
    arch = {"x86_64": "x86_64-linux-gnu/ld-linux-x86-64.so.2", "aarch64": "aarch64-linux-gnu/ld-linux-aarch64.so.1"}
    for name in (f"usr/lib/{arch[os.uname().machine]}", "usr/sbin/asterisk"):
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\necho 'Asterisk {version}+dfsg'\n")
        path.chmod(0o755)
    packed = tmp_path / "tree.tar"
    with tarfile.open(packed, "w") as tar:
        tar.add(root, ".")
    return packed


def provision(machine: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROVISION, *args], env=machine, capture_output=True, text=True, check=False, timeout=60)


def cached(machine: dict[str, str]) -> list[str]:
    return sorted(path.name for path in Path(machine["CALLROUTER_CACHE"]).iterdir() if path.name != ".provision.lock")


def test_extracted_asterisk_is_put_into_the_cache(machine: dict[str, str], tmp_path: Path) -> None:
    stand_in(tmp_path, f"cat {tree(tmp_path)}")
    done = provision(machine, "--refresh")
    assert done.returncode == 0, done.stderr
    assert "Asterisk 22.10.1" in done.stdout
    assert cached(machine) == ["asterisk-forky"]
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[-2:] == ["forky", "-"], "no mirror is named: mmdebstrap has its own"
    assert not any("Check-Valid-Until" in one for one in arguments)


def test_a_mirror_and_the_switch_are_passed_on(machine: dict[str, str], tmp_path: Path) -> None:
    stand_in(tmp_path, f"cat {tree(tmp_path)}")
    machine |= {"CALLROUTER_DEBIAN_MIRROR": "http://mirror.invalid/debian", "CALLROUTER_ACCEPT_EXPIRED_MIRROR": "1"}
    assert provision(machine, "--refresh").returncode == 0
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[-1] == "http://mirror.invalid/debian"
    assert '--aptopt=Acquire::Check-Valid-Until "false"' in arguments


def test_an_expired_mirror_ends_with_the_switch_that_accepts_it(machine: dict[str, str], tmp_path: Path) -> None:
    stand_in(tmp_path, f"echo '{EXPIRED}' >&2; exit 25")
    done = provision(machine, "--refresh")
    assert done.returncode == 1
    assert "Release file has expired" in done.stderr
    assert "CALLROUTER_ACCEPT_EXPIRED_MIRROR=1 ./dev setup" in done.stderr
    assert cached(machine) == []


def test_another_failure_says_so_and_keeps_what_was_there(machine: dict[str, str], tmp_path: Path) -> None:
    stand_in(tmp_path, f"cat {tree(tmp_path)}")
    provision(machine, "--refresh")
    stand_in(tmp_path, "echo 'E: no network' >&2; exit 1")
    done = provision(machine, "--refresh")
    assert done.returncode == 1
    assert "E: no network" in done.stderr
    assert cached(machine) == ["asterisk-forky"]


@pytest.mark.parametrize("version", ["18.26.4", "nonsense"])
def test_what_will_not_do_is_not_put_into_the_cache(machine: dict[str, str], tmp_path: Path, version: str) -> None:
    stand_in(tmp_path, f"cat {tree(tmp_path, version)}")
    done = provision(machine, "--refresh")
    assert done.returncode == 1
    assert "does not run" in done.stderr
    assert cached(machine) == []


def test_an_interrupted_extraction_leaves_nothing(machine: dict[str, str], tmp_path: Path) -> None:
    stand_in(tmp_path, f"touch {tmp_path}/begun; exec sleep 60")
    running = subprocess.Popen(
        [PROVISION, "--refresh"], env=machine, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    wait_until((tmp_path / "begun").exists, "the extraction has begun", 30)
    os.killpg(running.pid, signal.SIGINT)  # as the terminal does at Ctrl-C
    running.communicate(timeout=30)
    assert running.returncode == 130
    assert cached(machine) == []


def test_what_a_killed_run_left_is_cleared_away(machine: dict[str, str], tmp_path: Path) -> None:
    stand_in(tmp_path, f"cat {tree(tmp_path)}")
    (tmp_path / "cache/.extract.abcdef/root").mkdir(parents=True)
    assert provision(machine, "--refresh").returncode == 0
    assert cached(machine) == ["asterisk-forky"]


def test_both_finders_agree_on_a_prefix(
    machine: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from callrouter.asterisk.install import find_asterisk
    from callrouter.config import Settings

    tree(tmp_path)
    modules = tmp_path / "tree/usr/lib/asterisk/modules"
    modules.mkdir(parents=True)
    (modules / "res_ari.so").touch()
    done = provision(machine | {"CALLROUTER_ASTERISK_PREFIX": str(tmp_path / "tree")}, "--check")
    assert done.returncode == 0
    assert f"Asterisk {find_asterisk(Settings(asterisk_prefix=str(tmp_path / 'tree'))).version_text}:" in done.stdout


def test_a_prefix_without_an_asterisk_is_an_error(machine: dict[str, str], tmp_path: Path) -> None:
    done = provision(machine | {"CALLROUTER_ASTERISK_PREFIX": str(tmp_path)}, "--check")
    assert done.returncode == 1
    assert "no Asterisk 20 or newer" in done.stderr


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_recordings_are_never_committed() -> None:
    assert "/recordings/*" in text(".gitignore").splitlines()
    assert (ROOT / "recordings/.gitkeep").exists()


def test_text_check_finds_faults(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("one\ntwo\n")
    (tmp_path / "bad").write_text("one \n<<<<<<< ours\nend")
    check = [sys.executable, str(ROOT / "scripts/check-text")]
    assert subprocess.run([*check, str(tmp_path / "good")], check=False).returncode == 0
    done = subprocess.run([*check, str(tmp_path / "bad")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 3
