"""The board: what it is, its memory, clock, heat and power. `root` stands for /: a copy of a board's files will do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edgeswarm.agent.heat import CAPPED, SOFT_LIMIT, THROTTLED, UNDER_VOLTAGE, readings, throttle_word
from edgeswarm.agent.profile_tables import Thermal
from edgeswarm.cli.checks import FAIL, OK, SKIP, WARN, Finding

OLDEST_SANE_UNIX = 1_764_547_200
"""1 December 2025: this program did not exist before, so a clock below that is wrong."""
_THROTTLE_WORDS = (
    (UNDER_VOLTAGE, "under-voltage"),
    (CAPPED, "clock capped"),
    (THROTTLED, "throttled"),
    (SOFT_LIMIT, "at the soft temperature limit"),
)
_THROTTLE_SOURCE = "/sys/devices/platform/soc/soc:firmware/get_throttled"
_OLD_BOARDS = ("nvidia,tegra210", "nvidia,tegra186", "brcm,bcm2835")
_LEAST_AVAILABLE_MB = 64


def _text(path: Path) -> str | None:
    """Contents without the zeros and blanks at the end; None if it cannot be read (sensors answer with errors)."""
    try:
        return path.read_bytes().decode("utf-8", "replace").rstrip("\0 \n")
    except OSError:
        return None


def board(root: Path = Path("/")) -> Finding:
    """Which board this is, by its device tree; a PC by its firmware."""
    for folder in (root / "proc/device-tree", root / "sys/firmware/devicetree/base"):
        model = _text(folder / "model")
        if model:
            compatible = [entry for entry in (_text(folder / "compatible") or "").split("\0") if entry]
            facts = {"model": model, "compatible": compatible}
            release = _text(root / "etc/nv_tegra_release")
            if release:
                facts["l4t"] = release.splitlines()[0]
            if any(entry in _OLD_BOARDS for entry in compatible):
                return Finding("board", WARN, f"{model}: works with prototypes, too old for more", "", facts)
            return Finding("board", OK, model, "", facts)
    product = _text(root / "sys/class/dmi/id/product_name")
    return Finding("board", OK, product or "not a known board (no device tree)", "", {"model": product or ""})


def memory(root: Path = Path("/")) -> Finding:
    """Installed and available memory."""
    words = {}
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        words[name] = int(rest.split()[0]) // 1024 if rest.split() else 0
    total, available = words.get("MemTotal"), words.get("MemAvailable")
    if total is None or available is None:
        return Finding("memory", SKIP, "the kernel does not say")
    facts = {"total_mb": total, "available_mb": available}
    text = f"{available:,} MB available of {total:,} MB"
    if available < _LEAST_AVAILABLE_MB:
        return Finding("memory", FAIL, text, "stop something, or add swap: the agent needs about 60 MB", facts)
    if available < 2 * _LEAST_AVAILABLE_MB:
        return Finding("memory", WARN, text, "little is left for anything else beside the agent", facts)
    return Finding("memory", OK, text, "", facts)


def kernel_says_synchronised() -> bool | None:
    """Whether the kernel's clock is held by a time service (adjtimex); None if it will not say."""
    import ctypes

    time_error = 5
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state = libc.adjtimex(ctypes.create_string_buffer(1024))  # zeros: struct timex with modes = 0, only reading
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != time_error


def clock(
    root: Path = Path("/"),
    now_unix: float | None = None,
    synchronised: Callable[[], bool | None] = kernel_says_synchronised,
) -> Finding:
    """Whether the year is possible and a time service holds the clock: TLS certificates need the right date."""
    now_unix = time.time() if now_unix is None else now_unix
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now_unix))
    held = (root / "run/systemd/timesync/synchronized").exists() or synchronised()
    facts = {"now_unix": round(now_unix), "synchronised": held}
    if now_unix < OLDEST_SANE_UNIX:
        return Finding(
            "clock",
            FAIL,
            f"it says {date}",
            "start a time service (systemd-timesyncd, chrony); TLS fails with a wrong date",
            facts,
        )
    if held is None:
        return Finding("clock", OK, f"{date}; whether it is synchronised is not known here", "", facts)
    if not held:
        todo = "start a time service (systemd-timesyncd, chrony); an island wants one on the broker's host"
        return Finding("clock", WARN, f"{date}, not synchronised", todo, facts)
    return Finding("clock", OK, f"{date}, synchronised", "", facts)


def cgroup_memory(root: Path = Path("/")) -> Finding:
    """Whether MemoryMax= of a systemd unit is enforced; Raspberry Pi kernels start with that off."""
    controllers = _text(root / "sys/fs/cgroup/cgroup.controllers")
    if controllers is None:
        if (root / "sys/fs/cgroup/memory").is_dir():
            return Finding("cgroup-memory", OK, "memory limits are enforced (cgroup v1)")
        return Finding("cgroup-memory", SKIP, "no control groups here")
    if "memory" in controllers.split():
        return Finding("cgroup-memory", OK, "memory limits are enforced")
    return Finding(
        "cgroup-memory", WARN, "MemoryMax= would be accepted and ignored",
        "append cgroup_enable=memory to the one line of /boot/firmware/cmdline.txt and reboot",
    )  # fmt: skip


def throttling(root: Path = Path("/")) -> Finding:
    """The Raspberry Pi's throttle word: low bits now, high ones (16 up) since boot."""
    word = throttle_word(_THROTTLE_SOURCE, root)
    if word is None:
        return Finding("throttling", SKIP, "this board does not report it")
    now = [text for bit, text in _THROTTLE_WORDS if word & bit]
    since = [text for bit, text in _THROTTLE_WORDS if word >> 16 & bit and not word & bit]
    parts = [f"now: {', '.join(now)}"] if now else []
    parts += [f"since boot: {', '.join(since)}"] if since else []
    facts = {"word": word, "now": now, "since_boot": since}
    if not parts:
        return Finding("throttling", OK, "never since boot", "", facts)
    low_power = (word | word >> 16) & UNDER_VOLTAGE
    todo = (
        "use a stronger power supply and a short thick cable" if low_power else "give the board more air or a heat sink"
    )
    return Finding("throttling", WARN, "; ".join(parts), todo, facts)


def temperature(root: Path, thermal: Thermal) -> Finding:
    """The thermal zone nearest its limit: when training pauses, and where the board slows itself down."""
    found = readings(thermal, root)
    if not found:
        return Finding("temperature", SKIP, "this machine does not report it")
    zone, hottest_c, limit_c = found[0]
    pause_c = limit_c - thermal.pause_margin_c
    facts = {"hottest_c": hottest_c, "limit_c": limit_c, "pause_c": pause_c, "zone": zone}
    text = f"{hottest_c:.0f} °C ({zone}); training pauses at {pause_c:.0f} °C, the board slows down at {limit_c:.0f} °C"
    if hottest_c >= pause_c:
        return Finding("temperature", WARN, text, "give the board more air or a heat sink", facts)
    return Finding("temperature", OK, text, "", facts)
