"""One photo's record, as it stands in the manifest."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]
