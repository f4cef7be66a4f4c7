"""An evaluator for which a case that fails is reported and the next one begins."""

from __future__ import annotations

import errno
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer

from monai_diffens.data.case_list import CaseList
from monai_diffens.inferers.out_of_memory import is_out_of_memory
from monai_diffens.messages import say
from monai_diffens.transforms.input_gate import InputRejected

__all__ = ["CaseEvaluator", "failure_line"]

log = logging.getLogger("monai_diffens")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` over the cases of a run, one a batch.

    Whatever a case raises, while it is read, restored or written, is logged as one line and handed to
    ``cases``, which lists it at the end and sets the exit status. Details are logged at level DEBUG. Only
    where no result can be written any more (disk full) the run ends early: the next cases would compute in
    vain. For a failed case ``state.output`` is an empty list.
    """

    def __init__(
        self,
        device: torch.device,
        val_data_loader: DataLoader,
        network: torch.nn.Module,
        cases: CaseList,
        inferer: Inferer | None = None,
        postprocessing: Callable[[Any], Any] | None = None,
        val_handlers: Sequence[Any] | None = None,
    ) -> None:
        """Take the parts of a ``SupervisedEvaluator`` and the list that the loader's items come from.

        Raises:
            ValueError: the loader makes batches of more than one case, which would fail together.
        """
        if val_data_loader.batch_size != 1:
            raise ValueError(f"cases run one by one: batch_size must be 1, got {val_data_loader.batch_size}")
        super().__init__(
            device,
            _Surviving(val_data_loader),
            network,
            inferer=inferer,
            postprocessing=postprocessing,  # type: ignore[arg-type]
            val_handlers=val_handlers,
        )
        self.cases = cases

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, torch.Tensor]) -> Any:
        """Run one case; postprocessing, which writes the result, runs inside of MONAI's iteration too."""
        try:
            if isinstance(batchdata, Exception):  # what reading the case raised
                raise batchdata
            return super()._iteration(engine, batchdata)
        except Exception as error:
            case = self.cases.items[self.state.iteration - 1]["case"]
            line = failure_line(case, error)
            log.error("failed: %s", line)
            log.debug("details", exc_info=error)
            self.cases.fail(case, line)
            if any(isinstance(e, OSError) and e.errno in NO_ROOM for e in _chain(error)):
                self.terminate()
            return []

    def _handle_exception(self, e: BaseException) -> None:
        """Let an interruption pass: handlers such as MONAI's StatsHandler would log it with a traceback."""
        if not isinstance(e, Exception):
            raise e
        super()._handle_exception(e)


def failure_line(case: str, error: BaseException) -> str:
    """Say in one line why a case failed, without texts that may hold a path or a patient's name."""
    chain = _chain(error)
    for each in chain:
        if isinstance(each, InputRejected):
            return str(each)
        if isinstance(each, OSError) and each.errno is not None:
            return say("not_written", name=case, why=os.strerror(each.errno))
        if is_out_of_memory(each):
            return say("out_of_memory", name=case)
    frames = traceback.extract_tb(chain[-1].__traceback__)
    ours = [frame for frame in frames if "monai_diffens" in Path(frame.filename).parts] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "an unknown place"
    return say("unexpected", name=case, kind=type(chain[-1]).__name__, place=place)


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and what led to it: MONAI wraps what a transform raises."""
    chain = [error]
    while cause := chain[-1].__cause__ or (None if chain[-1].__suppress_context__ else chain[-1].__context__):
        chain.append(cause)
    return chain


class _Surviving:
    """A loader that hands on what an item raises in the item's place."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while True:
            try:
                batch: Any = next(batches)
            except StopIteration:
                return
            except Exception as error:
                batch = error
            yield batch
