"""The profiles that ship: all with the same keys, honest about what was tried, and found in a checkout and a wheel."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from pathlib import Path

import pytest

from edgeswarm.agent.board import board
from edgeswarm.agent.profile import Profile, budget, folder, load_profile, profiles
from edgeswarm.agent.profile_file import read
from edgeswarm.agent.profile_tables import TABLES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = {
    "pi-zero-2w", "pi-3", "pi-4", "pi-5", "jetson-nano", "jetson-xavier-nx", "jetson-orin-nano-8gb",
    "jetson-orin-nx-16gb", "jetson-agx-orin-64gb", "jetson-agx-thor", "generic-aarch64", "generic-x86_64",
}  # fmt: skip
ARMV8_0_TRAPS = {"torch==2.10.0", "onnxruntime==1.21.0"}

each = pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.id)


def keys_of(name: str) -> list[str]:
    """Tables and keys of a file, in its order."""
    tree = tomllib.loads((folder() / f"{name}.toml").read_text(encoding="utf-8"))
    return [f"{table}.{key}" for table, inner in tree.items() for key in (inner if isinstance(inner, dict) else [""])]


def test_they_are_all_there() -> None:
    assert {profile.id for profile in profiles()} == EXPECTED
    assert folder() == ROOT / "firmware_profiles"


@each
def test_same_keys_in_the_same_order(profile: Profile) -> None:
    assert keys_of(profile.id) == keys_of("pi-4")


@each
def test_every_key_is_explained(profile: Profile) -> None:
    del profile
    text = (folder() / "README.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`([a-z0-9_]+)`", text))
    named = {field.name for cls in TABLES.values() for field in dataclasses.fields(cls)}
    assert named <= explained
    assert {f"`[{name}]`" for name in TABLES} <= set(re.findall(r"`\[[a-z]+\]`", text))


def rows_of(page: str) -> dict[str, str]:
    """Tables and keys of a part of the README, and what it says of them."""
    found, table = {}, ""
    for keys, said in re.findall(r"^\| (`.+?`) \| (.*)\|$", page, re.M):
        table = keys.strip("`[]") if keys.startswith("`[") else table
        found |= {f"{table}.{key}": said for key in re.findall(r"`(\w+)`", keys)} if table else {}
    return found


def test_what_nobody_reads_is_marked() -> None:
    read = set()
    for path in (ROOT / "edgeswarm").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                above = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
                read.add(f"{above}.{node.attr}".lstrip("_"))
    own, rollout = map(rows_of, (folder() / "README.md").read_text(encoding="utf-8").split("## Keys for the rollout"))
    known = {f"{name}.{field.name}" for name, cls in TABLES.items() for field in dataclasses.fields(cls)}
    assert known == own.keys() | rollout.keys() and not own.keys() & rollout.keys()
    people = {key for key, said in own.items() if "for people" in said}
    assert known - read == rollout.keys() | people


@each
def test_what_was_not_tried_says_so(profile: Profile) -> None:
    if not profile.speed.verified:
        assert profile.speed.derivation.startswith("estimate, never measured: ")
    for claim in (profile.verified, profile.speed.verified):
        assert not claim or re.match(r"20\d\d-\d\d-\d\d, .{8}", claim)


@each
def test_the_estimates_follow_their_own_rule(profile: Profile) -> None:
    found = re.search(r"([\d.]+) GHz x (\d+) flops per cycle \(.+\) x ([\d.]+) reached", profile.speed.derivation)
    assert found
    assert profile.speed.gflops_float32_estimate == pytest.approx(
        float(found[1]) * float(found[2]) * float(found[3]), rel=0.05
    )
    assert profile.cpu.clock_mhz == pytest.approx(1000 * float(found[1]), rel=0.01)
    gpu = re.search(r"GPU: a tenth of (\d+) cores x 2 x ([\d.]+) GHz", profile.speed.derivation)
    wanted = 0.1 * float(gpu[1]) * 2 * float(gpu[2]) if gpu else 0.0
    assert profile.speed.accelerator_gflops_float32_estimate == pytest.approx(wanted, rel=0.05)


@each
def test_data_only(profile: Profile) -> None:
    """No path into anybody's home, no shell, no address."""
    text = (folder() / f"{profile.id}.toml").read_text(encoding="utf-8")
    assert not re.search(r"/home|/root|~|\$\(|\$\{|://|`", text)


@each
def test_safe_on_its_board(profile: Profile) -> None:
    assert profile.watchdog.runtime_s <= 15, "the Raspberry Pi's watchdog cannot go further"
    assert profile.training.max_step_s < profile.watchdog.service_s
    assert profile.mqtt.chunk_bytes + 4096 <= 120_000, "a packet larger than this is refused by some brokers"
    assert profile.mqtt.inflight <= profile.mqtt.receive_maximum
    assert 4 * profile.training.max_params <= profile.training.max_model_bytes
    # What is allowed must fit into what the smallest such board may take; these two come with 1 to 16 GB and more.
    found = dataclasses.replace(board(Path("/nowhere"), profile.cpu.arch), ram_bytes=profile.memory.ram_mb_min * 10**6)
    if profile.id not in ("generic-x86_64", "pi-5"):
        assert budget(profile, found).max_params == profile.training.max_params
        assert budget(profile, found).max_model_bytes == profile.training.max_model_bytes
    if profile.id.startswith("pi-"):
        assert profile.thermal.limit_c == 80.0 and profile.memory.cgroup_flag_needed
        assert profile.accelerator.kind == "none" and profile.cpu.arch == "aarch64"
    if profile.cpu.isa == "armv8.0-a" and profile.tier < 3:
        assert ARMV8_0_TRAPS.issubset(profile.wheels.never)
    if profile.tier == 3:
        assert profile.runtime.backends == ("reference",)


def test_no_board_is_claimed_twice() -> None:
    names = [entry for profile in profiles() for entry in profile.match.compatible]
    assert len(names) == len(set(names))


def test_as_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a wheel the folder is `_profiles` inside the package."""
    import edgeswarm.agent.profile as module

    place = tmp_path / "edgeswarm" / "agent" / "profile.py"
    (tmp_path / "edgeswarm" / "_profiles").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(place))
    assert folder() == tmp_path / "edgeswarm" / "_profiles"


def test_the_hash_is_of_the_file() -> None:
    from hashlib import sha256

    path = folder() / "pi-5.toml"
    assert read(path) == load_profile("pi-5") and read(path).hash == sha256(path.read_bytes()).hexdigest()
