"""Numbers as people read them: one spelling in reports, on screens and in what the verbs print."""

from __future__ import annotations

import math
import time


def count(value: float) -> str:
    """12345 as 12,345; - for what is not a number."""
    return f"{value:,.0f}" if math.isfinite(value) else "-"


def counted(value: float, thing: str) -> str:
    """1 round, 12,345 rounds; - rounds for what is not a number. thing: in the singular, its plural ends in s."""
    return f"{count(value)} {thing}{'' if value == 1 else 's'}"


def size(value_bytes: float) -> str:
    """Bytes with a unit of a thousand, one decimal below a hundred: 950 B, 1.2 kB, 386 kB, 3.4 MB."""
    if not math.isfinite(value_bytes):
        return "-"
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if abs(value_bytes) < 999.5:  # 999.96 kB is 1.0 MB, not 1000 kB
            break
        value_bytes, unit = value_bytes / 1000, larger
    decimals = 0 if unit == "B" or abs(value_bytes) >= 99.95 else 1
    return f"{value_bytes:,.{decimals}f} {unit}"


def span(value_s: float) -> str:
    """Seconds in the largest fitting units: 0.4 s, 12 s, 3 min 20 s, 40 min, 2 h 5 min, 4 d 3 h."""
    if not math.isfinite(value_s):
        return "-"
    if value_s < 9.95:
        return f"{max(value_s, 0.0):.1f} s"
    seconds = round(value_s)
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 600 and seconds % 60:
        return f"{seconds // 60} min {seconds % 60} s"
    minutes = round(value_s / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def brief(value_s: float | None) -> str:
    """A short time with three digits: 24 µs, 2.51 ms, 1.2 s, as `span` above ten seconds; - for None."""
    if value_s is None or not math.isfinite(value_s):
        return "-"
    if 0 < value_s < 0.9995e-3:
        return f"{value_s * 1e6:.3g} µs"
    if 0 < value_s < 0.9995:
        return f"{value_s * 1e3:.3g} ms"
    return f"{value_s:.3g} s" if value_s < 9.995 else span(value_s)


def percent(part: float | None, decimals: int = 1) -> str:
    """A share in [0, 1] as 91.2 %; - for None and for what is not a number."""
    return "-" if part is None or not math.isfinite(part) else f"{100 * part:.{decimals}f} %"


def number(value: float) -> str:
    """Three significant digits, whole numbers in full, no exponent for ordinary sizes."""
    if not math.isfinite(value):
        return "-"
    if value == int(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def moment(at_unix: float) -> str:
    """Seconds since 1970 as local time: the time alone today, with the date on other days."""
    now, then = time.localtime(), time.localtime(at_unix)
    form = "%H:%M:%S" if now[:3] == then[:3] else "%Y-%m-%d %H:%M:%S"
    return time.strftime(form, then)
