"""``python -m monai_diffens pack | verify | download | seal``: the same as ``diffens bundle``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from monai_diffens.cli import bundle_app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; SystemExit carries the status."""
    bundle_app(args=None if arguments is None else list(arguments), prog_name="python -m monai_diffens")


if __name__ == "__main__":
    main(sys.argv[1:])
