"""What every study is: cases x settings x methods, a row of a table each, and a row that is there is done."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from research.studies.tables import MARK, MethodMarks, append_row, read_table, start_table

logger = logging.getLogger(__name__)

Names = dict[str, str]  # columns that tell which row it is
Measure = Callable[[], dict[str, Any]]  # the row's other columns


@dataclass
class Volumes:
    """What a study works on.

    Attributes:
        items: volumes, each with ``case`` and what ``preprocessing`` loads, such as ``label`` (path).
        preprocessing: loads an item and scales its ``label`` (1, X, Y, Z) to [0, about 1].
        region: side lengths of the box that is restored, in voxels; the whole volume when None.
    """

    items: Sequence[Mapping[str, Any]]
    preprocessing: Callable[[Mapping[str, Any]], dict[str, Any]]
    region: Sequence[int] | None = None


@dataclass
class Model:
    """What restores them.

    Attributes:
        network: the model, on ``device``.
        inferer: its scheduler and seed are used; a study sets fusion and steps.
        device: where it runs.
    """

    network: DiffEnsembler
    inferer: DiffEnsemblerInferer
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        self.network.eval()


class Study(ABC):
    """Measure what the table lacks, row by row: a study that was stopped goes on where it was.

    Args:
        table: CSV; rows already in it are not computed again, those of other weights are.
        settings: name -> what :meth:`methods` makes of it.
        marks: which weights the rows are of.
    """

    keys: ClassVar[tuple[str, ...]]
    """Columns that tell rows apart, the table's first."""
    needed: ClassVar[str] = MARK
    """A table without this column, of an earlier version, is begun anew."""

    def __init__(self, table: Path, settings: Mapping[str, Mapping[str, Any]], marks: MethodMarks) -> None:
        self.table = table
        self.settings = settings
        self.marks = marks

    def run(self) -> Path:
        """Compute what is missing in the table, and return its path."""
        mark = start_table(self.table, self.marks, self.needed)
        done = {self.key_of(row) for row in read_table(self.table)}
        for case, loaded in self.cases():
            for name, setting in self.settings.items():
                if not self.applies(loaded, setting):
                    continue
                place = case | {"setting": name, MARK: mark}
                for method, measure in self.methods(place, loaded, setting):
                    names = place | method
                    key = tuple(names[column] for column in self.keys)
                    if key not in done:
                        row = {**dict(zip(self.keys, key, strict=True)), **measure()}
                        append_row(self.table, row)
                        figures = {k: f"{v:.3f}" for k, v in row.items() if isinstance(v, float)}
                        logger.info("%s: %s", " ".join(key), figures)
        return self.table

    def key_of(self, row: Mapping[str, str]) -> tuple[str, ...]:
        """The key of a row of the table."""
        return tuple(row[column] for column in self.keys)

    @abstractmethod
    def cases(self) -> Iterator[tuple[Names, Any]]:
        """Every case: what it is called, and what is loaded of it once for all settings."""

    def applies(self, loaded: Any, setting: Mapping[str, Any]) -> bool:
        """Whether a case can be taken in a setting; every one, unless a study says otherwise."""
        return True

    @abstractmethod
    def methods(
        self, place: Names, loaded: Any, setting: Mapping[str, Any]
    ) -> Iterator[tuple[Names, Measure]]:
        """Every method on a case in a setting: what it is called, and what measures it.

        Args:
            place: names of case, setting and weights.
            loaded: of the case.
            setting: one of ``settings``.
        """


def dial_names(num_steps: int, restart: float | None) -> Names:
    """Columns of a point of the dial."""
    return {"num_steps": str(num_steps), "restart": "" if restart is None else str(restart)}
