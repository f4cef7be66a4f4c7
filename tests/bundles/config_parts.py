"""The parts of a bundle's configuration, for the tests that look at all of them."""

from collections.abc import Iterator
from typing import Any


def components(config: Any) -> Iterator[dict[str, Any]]:
    """Every part of a config that names a `_target_`."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from components(part)
