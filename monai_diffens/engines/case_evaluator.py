"""Cases of a run, one by one: one that fails is reported and the next begins; what is told as they end."""

from __future__ import annotations

import errno
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from tqdm import tqdm

from monai_diffens.data.case_list import CaseList
from monai_diffens.inferers.memory import is_out_of_memory
from monai_diffens.messages import InputRejected, say

__all__ = ["CaseEnd", "CaseEvaluator", "CaseProgress", "failure_line"]

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

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Run all cases; precision is the inferer's to choose, whatever the caller computes in."""
        with torch.autocast(torch.device(self.state.device).type, enabled=False):
            super().run(global_epoch)

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


class CaseEnd(NamedTuple):
    """A case that ended.

    Attributes:
        case: its name.
        failure: why it has no result; None where it has one.
        seconds: how long it took.
    """

    case: str
    failure: str | None
    seconds: float


class CaseProgress:
    """Handler of a :class:`~monai_diffens.engines.case_evaluator.CaseEvaluator`.

    Args:
        on_end: called with each case as it ends.
        bar: show a bar over the cases, where there are several.
    """

    def __init__(self, on_end: Callable[[CaseEnd], None], bar: bool = True) -> None:
        self.on_end, self.bar = on_end, bar
        self._bar: tqdm[Any] | None = None
        self._began = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> CaseProgress:
        """Itself: a configuration copies what stands in it, and this one is to be heard."""
        return self

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._end)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self._close)

    def _start(self, engine: Any) -> None:
        count = len(engine.cases.items)
        self._bar = tqdm(total=count, desc="cases", unit="case", disable=not self.bar or count < 2)
        self._began = time.perf_counter()

    def _begin(self, engine: Any) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self._case(engine))

    def _end(self, engine: Any) -> None:
        now, case = time.perf_counter(), self._case(engine)
        if self._bar is not None:
            self._bar.update()
        self.on_end(CaseEnd(case, engine.cases.failures.get(case), now - self._began))
        self._began = now

    def _close(self, engine: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def _case(self, engine: Any) -> str:
        return str(engine.cases.items[engine.state.iteration - 1]["case"])
