"""What a run tells while it goes: a bar over its cases, and each case as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ignite.engine import Engine, Events
from tqdm import tqdm

__all__ = ["CaseEnd", "CaseProgress"]


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
