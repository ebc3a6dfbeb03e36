"""Which values of a line of metrics.jsonl can be reckoned with."""

from __future__ import annotations

from typing import Any

MOST = 1e100  # from which no step or loss can be


def is_number(value: Any) -> bool:
    """Whether it is finite, in the range of floats, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST
