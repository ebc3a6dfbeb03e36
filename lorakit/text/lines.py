"""The lines of a text file, as editors and JSON know them."""

from __future__ import annotations

import re


def split_lines(text: str) -> list[str]:
    """Ended by \\n, \\r\\n or \\r. `str.splitlines` cuts at U+2028 and others too, which may stand within a line."""
    return re.split(r"\r\n|\r|\n", text)
