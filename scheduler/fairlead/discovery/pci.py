"""PCI addresses as different sources write them, made equal."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])")


def normal_pci(text: str) -> str:
    """Return ``dddd:bb:dd.f`` in lower case: NVML's eight-digit domains lose their zeros, a missing domain is 0.

    A domain that needs more than four digits keeps them. "" where the text is no PCI address.

    >>> normal_pci("00000000:3B:00.0")
    '0000:3b:00.0'
    >>> normal_pci("10000:E1:00.0")
    '10000:e1:00.0'
    """
    match = _ADDRESS.fullmatch(text.strip())
    if match is None:
        return ""
    domain, bus, device, function = int(match[1] or "0", 16), int(match[2], 16), int(match[3], 16), match[4]
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function}"
