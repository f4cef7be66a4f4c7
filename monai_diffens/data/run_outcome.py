"""What became of the cases of a run: the summary at its end, and an exit status that tells the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from monai_diffens.data.output_folder import stamp
from monai_diffens.messages import say, tell

__all__ = ["Rejected", "RunOutcome"]


class Rejected(NamedTuple):
    """An input that was not worked on, and the line that says why."""

    path: Path
    reason: str


@dataclass
class RunOutcome:
    """The cases of a run.

    Attributes:
        items: cases to work on.
        rejected: inputs that were turned down.
        skipped: results that were already there.
        fine: inputs for which nothing is to do.
        left_out: lines on what was not looked at.
        results: result of each item, in their order.
        before: which writing of these was there before the run, see :func:`stamp`.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    fine: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    before: list[tuple[int, int] | None] = field(default_factory=list)

    def work_on(self, item: dict[str, Any], result: Path) -> None:
        """Take in a case that is to be worked on."""
        self.items.append(item)
        self.results.append(result)
        self.before.append(stamp(result))

    def finish(self, failures: dict[str, str], share: tuple[int, int]) -> int:
        """Print what became of the cases.

        Args:
            failures: case -> why it has no result.
            share: rank and number of processes of the run.

        Returns:
            0 when every case has its result.

        Raises:
            SystemExit: status 1, when a case was rejected or its result was not written in this run.
        """
        failed = [
            item["case"]
            for item, result, before in zip(self.items, self.results, self.before, strict=True)
            if item["case"] in failures or stamp(result) in (None, before)
        ]
        rank, world_size = share
        tell(
            (f"process {rank + 1} of {world_size}: " if world_size > 1 else "")
            + f"{len(self.items) - len(failed)} done, {len(self.skipped)} skipped (result already there), "
            f"{len(self.rejected)} rejected, {len(failed)} failed"
            + (f", {len(self.fine)} with nothing to do (already at the target spacing)" if self.fine else "")
        )
        for entry in self.rejected:
            tell(f"rejected: {entry.reason}")
        for case in failed:
            tell(f"failed: {failures.get(case) or say('no_result', name=case)}")
        for line in self.left_out:
            tell(line)
        if self.rejected or failed:
            raise SystemExit(1)
        return 0
