"""Name and dates of an X.509 certificate: just enough DER for that (X.690; RFC 5280 section 4.1).

Python's `ssl` shows these of a peer it trusts only, and never of our own certificate file.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime, timezone

_SEQUENCE, _SET, _OBJECT, _VERSION = 0x30, 0x31, 0x06, 0xA0
_COMMON_NAME = bytes.fromhex("550403")
_PEM_BEGIN, _PEM_END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Certificate:
    """common_name: of the subject, empty if it has none.  Both times in UTC."""

    common_name: str
    not_before: datetime
    not_after: datetime

    def days_left(self, now: datetime) -> float:
        """Days until it expires, negative afterwards."""
        return (self.not_after - now).total_seconds() / 86_400


def from_pem(text: str) -> Certificate:
    """The first certificate in a PEM file's text. Raises ValueError."""
    start, end = text.find(_PEM_BEGIN), text.find(_PEM_END)
    if start < 0 or end < start:
        raise ValueError("no certificate in it")
    return from_der(ssl.PEM_cert_to_DER_cert(text[start : end + len(_PEM_END)]))


def from_der(data: bytes) -> Certificate:
    """Name and dates of a certificate in DER. Raises ValueError when it is not one."""
    try:
        outer = _fields(_fields(data)[0][1])
        fields = _fields(outer[0][1])
        if fields[0][0] == _VERSION:  # absent in certificates of version 1
            fields = fields[1:]
        _, _, _, validity, subject = fields[:5]  # serial, algorithm, issuer come before
        before, after = (_time(value) for _, value in _fields(validity[1]))
        return Certificate(_common_name(subject[1]), before, after)
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"not a certificate: {error}") from None


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """(tag, content) of the values that stand one after the other. Raises ValueError, IndexError."""
    found = []
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + length > len(data):
            raise ValueError("not a certificate: cut short")
        found.append((tag, data[at : at + length]))
        at += length
    return found


def _time(value: bytes) -> datetime:
    text = value.decode("ascii")
    if len(text) == 13:  # two digits of a year mean 1950 to 2049 (RFC 5280, 4.1.2.5.1)
        text = ("19" if text[0] >= "5" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def _common_name(name: bytes) -> str:
    for _, group in _fields(name):
        for _, pair in _fields(group):
            (kind, oid), (_, value) = _fields(pair)[:2]
            if kind == _OBJECT and oid == _COMMON_NAME:
                return value.decode("utf-8", "replace")
    return ""
