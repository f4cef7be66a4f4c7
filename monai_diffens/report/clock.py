"""When the work on a case began, for the time on its page."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Transform

STARTED = "started"


class StampStart(Transform):
    """Put the time into ``data["started"]``, seconds since the epoch; the first transform of a case.

    Results and their JSON files never hold it: equal input gives equal files.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the key."""
        return {**data, STARTED: time.time()}


def seconds_since(data: Mapping[Hashable, Any]) -> float | None:
    """Seconds since :class:`StampStart` saw the case; None where it did not, or the clock was put back."""
    if STARTED not in data:
        return None
    seconds = time.time() - float(data[STARTED])
    return seconds if seconds >= 0 else None
