"""Which profile a board gets, what it may take there, and what a wrong profile is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeswarm.agent.board import board
from edgeswarm.agent.profile import budget, choose, detect, folder, load_profile, model_limits
from edgeswarm.agent.profile_file import in_range, read
from edgeswarm.errors import ConfigError

Put = Callable[[dict[str, str]], Path]
PI_5_CPU = "".join(f"processor\t: {n}\nFeatures\t: fp asimd atomics fphp asimdhp asimddp\n\n" for n in range(4))
A53_CPU = "".join(f"processor\t: {n}\nFeatures\t: fp asimd evtstrm crc32 cpuid\n\n" for n in range(4))


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write files below a root folder, by path; returns the root."""

    def write(contents: dict[str, str]) -> Path:
        for name, text in contents.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        (tmp_path / "root").mkdir(exist_ok=True)
        return tmp_path / "root"

    return write


def tree(*compatible: str, **more: str) -> dict[str, str]:
    """The files of a board with that device tree. more: ram_mb, cpu, l4t, os."""
    files = {"proc/device-tree/compatible": "".join(entry + "\0" for entry in compatible)}
    files["proc/meminfo"] = f"MemTotal: {int(more.get('ram_mb', '8000')) * 1000} kB\nMemAvailable: 1000 kB\n"
    files["proc/cpuinfo"] = more.get("cpu", PI_5_CPU)
    if "l4t" in more:
        files["etc/nv_tegra_release"] = more["l4t"]
    return files


# ---- which one ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compatible", "ram_mb", "wanted"),
    [
        (("raspberrypi,model-zero-2-w", "brcm,bcm2837"), "430", "pi-zero-2w"),
        (("raspberrypi,3-model-b-plus", "brcm,bcm2837"), "930", "pi-3"),
        (("raspberrypi,2-model-b-rev2", "brcm,bcm2837"), "930", "pi-3"),
        (("raspberrypi,4-model-b", "brcm,bcm2711"), "930", "pi-4"),
        (("raspberrypi,4-model-b", "brcm,bcm2711"), "7900", "pi-4"),
        (("raspberrypi,4-compute-module-s", "brcm,bcm2711"), "1900", "pi-4"),
        (("raspberrypi,5-model-b", "brcm,bcm2712"), "16000", "pi-5"),
        (("nvidia,p3450-0000", "nvidia,tegra210"), "4000", "jetson-nano"),
        (("nvidia,jetson-nano", "nvidia,tegra210"), "4000", "jetson-nano"),
        (("nvidia,p3449-0000+p3668-0001", "nvidia,p3449-0000+p3668-0001", "nvidia,tegra194"), "7000",
         "jetson-xavier-nx"),
        (("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"), "7600",
         "jetson-orin-nano-8gb"),
        (("nvidia,p3768-0000+p3767-0000", "nvidia,p3767-0000", "nvidia,tegra234"), "15600", "jetson-orin-nx-16gb"),
        (("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"), "62000", "jetson-agx-orin-64gb"),
        (("nvidia,p3971-0089+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"), "125000", "jetson-agx-thor"),
        (("nvidia,p3737-0000+p3701-0004", "nvidia,p3701-0004", "nvidia,tegra234"), "30000", "jetson-orin-nano-8gb"),
        (("somebody,board", "rockchip,rk3588"), "8000", "generic-aarch64"),
    ],
)  # fmt: skip
def test_boards(put: Put, compatible: tuple[str, ...], ram_mb: str, wanted: str) -> None:
    profile, reason = detect(put(tree(*compatible, ram_mb=ram_mb)), "aarch64")
    assert profile.id == wanted, reason
    said = "no profile knows somebody,board; aarch64" if "generic" in wanted else "the device tree says "
    assert reason.startswith(said)


def test_the_most_special_name_decides(put: Put) -> None:
    """A Zero 2 W also says bcm2837, which alone would mean a Pi 3 with more memory."""
    files = tree("brcm,bcm2837", "raspberrypi,model-zero-2-w", cpu=A53_CPU)
    assert detect(put(files), "aarch64")[0].id == "pi-3", "the order of the device tree counts, not that of the files"


@pytest.mark.parametrize(
    ("files", "machine", "wanted", "said"),
    [
        (tree("raspberrypi,4-model-b", cpu=A53_CPU), "armv7l", "generic-aarch64", "no profile for armv7l"),
        (tree("raspberrypi,5-model-b", cpu=A53_CPU), "aarch64", "generic-aarch64",
         "it would be pi-5, but the processor lacks asimddp, atomics"),
        (tree("nvidia,p3767-0005", l4t="# R35 (release), REVISION: 4.1, GCID: 1"), "aarch64", "generic-aarch64",
         "it would be jetson-orin-nano-8gb, but L4T 35.4.1 is not >=36.2, <40"),
        (tree("raspberrypi,4-model-b", ram_mb="600"), "aarch64", "generic-aarch64",
         "it would be pi-4, but that has at least 800 MB"),
        ({}, "x86_64", "generic-x86_64", "no device tree; x86_64"),
        ({}, "riscv64", "generic-aarch64", "no profile for riscv64"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_not_taken(put: Put, files: dict[str, str], machine: str, wanted: str, said: str) -> None:
    profile, reason = detect(put(files), machine)
    assert profile.id == wanted and said in reason


def test_a_board_that_hides_its_l4t_is_still_known(put: Put) -> None:
    """In a container /etc/nv_tegra_release is not to be seen."""
    assert detect(put(tree("nvidia,p3767-0005")), "aarch64")[0].id == "jetson-orin-nano-8gb"


def test_this_machine_gets_one() -> None:
    profile, reason = detect()
    assert profile.id and reason


def test_by_hand(tmp_path: Path, put: Put) -> None:
    assert choose("pi-4", put({}))[0].id == "pi-4"
    assert choose("auto", put(tree("raspberrypi,4-model-b")))[0] == choose("", put({}))[0]
    own = tmp_path / "my-board.toml"
    own.write_text((folder() / "pi-4.toml").read_text(encoding="utf-8").replace('id = "pi-4"', 'id = "my-board"'))
    assert choose(str(own), put({}))[0].id == "my-board"
    with pytest.raises(ConfigError, match=r"no firmware profile is called 'pi4'; did you mean 'pi-4'\?"):
        load_profile("pi4")
    with pytest.raises(ConfigError, match=r"no such file or folder: cannot read the firmware profile .*none\.toml"):
        load_profile(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("version", "text", "inside"),
    [
        ((36, 4, 3), ">=36.2, <40", True),
        ((36,), ">=36.0", True),
        ((36, 4), "==36.4.0", True),
        ((40,), "<40", False),
        ((35, 6), ">=36", False),
        ((36, 1), ">36.1", False),
        ((36, 1), "<= 36.1", True),
    ],
)
def test_ranges(version: tuple[int, ...], text: str, inside: bool) -> None:
    assert in_range(version, text) is inside


# ---- how much -------------------------------------------------------------------------------------------------------

GROUP = "0::/system.slice/edgeswarm.service\n"


def test_the_smallest_limit_wins(put: Put) -> None:
    root = put(tree("raspberrypi,model-zero-2-w", ram_mb="430", cpu=A53_CPU))
    profile, _ = detect(root, "aarch64")
    assert budget(profile, board(root)).memory_bytes == 200_000_000
    assert "memory_max_mb of pi-zero-2w" in budget(profile, board(root)).memory_reason
    put({"proc/self/cgroup": GROUP, "sys/fs/cgroup/system.slice/memory.max": "150000000\n",
         "sys/fs/cgroup/system.slice/edgeswarm.service/memory.max": "max\n",
         "sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n"})  # fmt: skip
    found = budget(profile, board(root))
    assert found.memory_bytes == 150_000_000 and "control group" in found.memory_reason and found.enforced is True
    pi_4 = load_profile("pi-4")
    assert budget(pi_4, board(root)).memory_bytes == 150_000_000


def test_half_of_a_large_board(put: Put) -> None:
    found = budget(load_profile("pi-4"), board(put(tree("raspberrypi,4-model-b", ram_mb="4000")), "aarch64"))
    assert found.memory_bytes == 2_048_000_000 and found.memory_reason == "50% of this board's memory"
    assert found.threads == 3 and found.batch == 32


def test_little_memory_means_small_models(put: Put) -> None:
    """A PC of unknown size, as a container with 100 MB: 32 bytes for each parameter in training."""
    root = put({"proc/meminfo": "MemTotal: 9000000 kB\n", "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "96000000\n"})  # fmt: skip
    found = budget(load_profile("generic-x86_64"), board(root))
    assert (found.max_params, found.max_model_bytes) == (3_000_000, 24_000_000)
    limits = model_limits(load_profile("generic-x86_64"), board(root))
    assert (limits.parameters, limits.file_bytes) == (3_000_000, 24_000_000)
    limits = model_limits(load_profile("pi-4"))
    assert (limits.parameters, limits.file_bytes) == (12_000_000, 64_000_000)


def test_threads_are_no_more_than_the_cores(put: Put) -> None:
    one = board(put({"proc/cpuinfo": "processor : 0\n"}))
    assert budget(load_profile("pi-4"), one).threads == 1
    assert budget(load_profile("pi-4"), one).memory_bytes is None


def test_limits_of_control_groups_of_version_1(put: Put) -> None:
    root = put({
        "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/a/b\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "300000000\n",
    })  # fmt: skip
    found = board(root)
    assert found.cgroup_limit_bytes == 300_000_000 and found.limit_enforced is True


def test_a_pi_ignores_limits_until_it_is_told(put: Put) -> None:
    assert board(put({"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n"})).limit_enforced is False


def test_a_board_that_says_nothing(put: Put) -> None:
    found = board(put({"proc/meminfo": "MemTotal: lots\n", "proc/self/cgroup": "junk\n0::/../..\n"}), "aarch64")
    assert (found.ram_bytes, found.cgroup_limit_bytes, found.limit_enforced) == (None, None, None)
    assert found.cores == 1 and found.compatible == () and found.l4t == () and found.os == ("", "")


def test_facts(put: Put) -> None:
    root = put(tree("nvidia,jetson-nano", l4t="# R32 (release), REVISION: 7.6, GCID: 1, BOARD: t210ref"))
    put({"etc/os-release": 'NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="18.04"\n', "proc/device-tree/model": "Nano\0"})
    found = board(root, "aarch64")
    assert found.l4t == (32, 7, 6) and found.os == ("ubuntu", "18.04") and found.model == "Nano"
    assert found.cores == 4 and "asimddp" in found.features and found.ram_bytes == 8_192_000_000


# ---- wrong files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[str, str], Path]:
    """The Pi 4's file with one piece of text replaced."""

    def write(old: str, new: str) -> Path:
        text = (folder() / "pi-4.toml").read_text(encoding="utf-8")
        assert text.count(old) == 1, old
        path = tmp_path / "pi-4.toml"
        path.write_text(text.replace(old, new), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1\n", "schema = 2\n", r":2: schema must be 1 for this version of edgeswarm, not 2$"),
        ("schema = 1\n", "", r": schema must be 1 for this version of edgeswarm, not None$"),
        ("schema = 1\n", "schema = true\n", r":2: schema must be 1"),
        ("\ntier = 1\n", "\ntier = 4\n", r":5: tier must be 1, 2 or 3, not 4$"),
        ("nice = 5\n", "nice = 5\nniceness = 1\n", r": \[limits\] niceness is unknown; did you mean 'nice'\?$"),
        ("nice = 5\n", "", r": \[limits\] nice is missing: a profile has every key"),
        ("nice = 5\n", "nice = 50\n", r": \[limits\] nice must be at most 19, not 50$"),
        ("[limits]\n", "[limit]\n", r": limit is unknown; did you mean 'limits'\?$"),
        ("batch = 32\n", 'batch = "32"\n', r": \[training\] batch must be a whole number, not the text '32'$"),
        ("batch = 32\n", "batch = nan\n", r": \[training\] batch must be a whole number"),
        ("max_step_s = 10.0\n", "max_step_s = inf\n", r"\[training\] max_step_s must be a finite number"),
        ('"torch", "reference"]', '"torch"]', r"\[runtime\] backends must end with 'reference'"),
        ('"torch", "reference"]', '"cupy", "reference"]', r"\[runtime\] backends cannot be 'cupy'"),
        (
            '["onnx", "torch"',
            '["torch-cuda", "torch"',
            r"backends holds 'torch-cuda', but \[accelerator\] kind is 'none'",
        ),
        ("resume_margin_c = 10.0", "resume_margin_c = 4.0", r"\[thermal\] resume_margin_c must be larger than pause"),
        ("threads = 3\n", "threads = 5\n", r"\[training\] threads must be at most the 4 cores"),
        ('l4t = ""', 'l4t = "36 or so"', r"\[match\] l4t must be a range such as"),
        ('env = { OMP_NUM_THREADS = "1", OPENBLAS_NUM_THREADS = "1" }', "env = 1", r"\[runtime\] env must be a table"),
        ('{ OMP_NUM_THREADS = "1",', '{ "a b" = "1",', r"\[runtime\] env 'a b' must be a variable's name in capitals"),
        ('{ OMP_NUM_THREADS = "1",', "{ OMP_NUM_THREADS = 1,", r"\[runtime\] env 'OMP_NUM_THREADS' must be"),
        ('id = "pi-4"', 'id = "pi-9"', r": id is 'pi-9', so the file must be called pi-9\.toml$"),
        ('id = "pi-4"', 'id = "Pi 4"', r": id must be of a-z"),
        ("[limits]\n", "[limits\n", r": not TOML: "),
        ("[clock]\n", "[[clock]]\n", r": clock is a table: write \[clock\] on a line of its own$"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(changed: Callable[[str, str], Path], old: str, new: str, said: str) -> None:
    path = changed(old, new)
    with pytest.raises(ConfigError, match=said) as caught:
        read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = (folder() / "pi-4.toml").read_bytes()
    path = tmp_path / "pi-4.toml"
    for length in range(0, len(data) - len('\nverified = ""\n'), 97):
        path.write_bytes(data[:length])
        with pytest.raises(ConfigError):
            read(path)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a = " + b"[" * 5_000, b"#" * 200_000])
def test_junk_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "pi-4.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
