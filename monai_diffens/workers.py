"""The cases of a run, done by workers of dask: processes of this machine, or those of a cluster.

The command finds and checks the cases and writes index and tables, as it does without workers. A worker gets
one checked case at a time and writes its result; a few lines come back. So inputs, outputs and bundle
must lie where all machines see them, under one path. A case whose worker died is given to another one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from monai_diffens.bundle.folder import WEIGHTS
from monai_diffens.files import package_version
from monai_diffens.messages import BundleRejected, InputRejected, say
from monai_diffens.options import OPTIONS

if TYPE_CHECKING:
    from distributed import Client, Future
    from monai.bundle import ConfigWorkflow

    from monai_diffens.data.case_list import CaseList
    from monai_diffens.engines.case_evaluator import CaseEnd
    from monai_diffens.networks.diff_ensembler import DiffEnsembler

__all__ = ["Crew", "Done", "Job", "absolute", "check_workers", "do_case", "job_of", "workers_of"]

log = logging.getLogger("monai_diffens")

PATIENCE_S = 10  # for a scheduler's answer
GIB = 2**30
MEMORY_SHARE = 0.9  # of a worker's limit; at 0.95 dask ends the worker
# A worker with freed memory at hand looks full to dask, which would then give it no further case. And a case
# that waits at a worker would count as one more that the worker died of.
SETTINGS = {
    **{f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause")},
    "distributed.scheduler.worker-saturation": 1.0,
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ONE_CASE = threading.Lock()  # in a process: a case takes its memory, and its standard error


@dataclass(frozen=True)
class Job:
    """What the cases of a run share; plain values, which travel to the workers.

    Attributes:
        root: folder of the bundle.
        options: id -> value, checked, paths absolute.
        version: of this package.
        weights: recorded hash of the weights; None where none is recorded.
    """

    root: str
    options: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    weights: str | None = None


class Done(NamedTuple):
    """What a worker tells of a case.

    Attributes:
        failure: why it has no result; None where it has one.
        seconds: how long it took.
        told: level and text of each line that it logged.
        no_room: whether no result can be written any more.
    """

    failure: str | None
    seconds: float
    told: list[tuple[int, str]]
    no_room: bool


@dataclass
class OneCase:
    """A case list of one case that was checked elsewhere."""

    items: list[dict[str, Any]]
    failures: dict[str, str] = field(default_factory=dict)

    def fail(self, case: str, reason: str) -> None:
        """Note why the case has no result."""
        self.failures[case] = reason


class Crew:
    """Workers that do the cases of a run.

    Args:
        job: what the cases share.
        workers: opens a client of dask's scheduler for as long as there are cases.
        on_end: called with each case as it ends.
        bar: show a bar over the cases on stderr.
        work: what a worker does with the job and an item.
    """

    def __init__(
        self,
        job: Job,
        workers: AbstractContextManager[Client],
        on_end: Callable[[CaseEnd], None] = lambda _: None,
        bar: bool = False,
        work: Callable[[Job, dict[str, Any]], Done] | None = None,
    ) -> None:
        self.job, self.workers, self.on_end, self.bar = job, workers, on_end, bar
        self.work = do_case if work is None else work
        self.cases: CaseList | None = None  # comes from the run's configuration

    def __deepcopy__(self, memo: dict[int, Any]) -> Crew:
        """Itself: a configuration copies what stands in it."""
        return self

    def take_over(self, workflow: ConfigWorkflow) -> None:
        """Take the place of the evaluator of an opened run."""
        workflow.parser["evaluator"] = {"_target_": f"{__name__}.on_cases", "crew": self, "cases": "@cases"}

    def run(self) -> None:
        """Have every case done; those that fail are noted in the case list."""
        from tqdm import tqdm

        from monai_diffens.engines.case_evaluator import CaseEnd

        cases = self.cases
        assert cases is not None
        with self.workers as client, tqdm(total=len(cases.items), disable=not self.bar) as bar:
            bar.set_description(f"cases ({client.dashboard_link})" if find_spec("bokeh") else "cases")
            for case, done in self._ended(client, cases.items):
                for level, line in done.told:
                    log.log(level, "%s", line)
                if done.failure is not None:
                    cases.fail(case, done.failure)
                self.on_end(CaseEnd(case, done.failure, done.seconds))
                bar.update()

    def _ended(self, client: Client, items: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Done]]:
        """Each case as it ends; none after one that found no room for its result."""
        from distributed import as_completed

        # keys hold no names: a dashboard shows them
        waiting = {
            client.submit(self.work, self.job, item, key=f"case-{id(self)}-{number}"): str(item["case"])
            for number, item in enumerate(items)
        }
        for future in as_completed(list(waiting)):
            case = waiting.pop(future)
            done = _outcome(future, case)
            yield case, done
            if done.no_room:
                client.cancel(list(waiting))
                return


def on_cases(crew: Crew, cases: CaseList) -> Crew:
    """The crew, to be run on cases that were checked."""
    crew.cases = cases
    return crew


def check_workers(workers: int | None, scheduler: str | None) -> None:
    """Refuse what cannot be had, before anything is begun.

    Raises:
        InputRejected: both are given, the extra is not installed, or this is one process of several.
    """
    from monai_diffens.engines.processes import place

    if workers is not None and scheduler is not None:
        raise InputRejected(say("two_crews"))
    if find_spec("distributed") is None:
        raise InputRejected(say("no_cluster_extra"))
    if place().world_size > 1:
        raise InputRejected(say("workers_of_workers"))


def absolute(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run, by id, whose paths other machines find too."""
    paths = {option.name for option in OPTIONS if option.kind == "path"}
    return {
        name: str(Path(value).absolute()) if name in paths and value is not None else value
        for name, value in options.items()
    }


def job_of(root: Path, options: Mapping[str, Any]) -> Job:
    """What is sent to the workers of a run.

    Args:
        root: folder of the bundle.
        options: of :func:`absolute`.
    """
    weights = options.get("weights_file") or root / WEIGHTS
    return Job(str(root.absolute()), options, package_version(), recorded(weights))


@contextmanager
def workers_of(workers: int | None, scheduler: str | None) -> Iterator[Client]:
    """Start workers on this machine, or meet those of a scheduler that runs already.

    Workers of this machine share its cores and memory evenly; their scheduler listens on loopback, to this
    run alone (temporary TLS certificates).

    Args:
        workers: how many to start.
        scheduler: address of a scheduler, as ``tcp://host:8786``, in their place.

    Raises:
        InputRejected: no scheduler answers.
    """
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=PATIENCE_S)
        except (OSError, ValueError, TypeError, RuntimeError, ImportError, AssertionError) as error:
            # of protocols, too; an assertion where the client's own loop did not start in ten seconds
            raise InputRejected(say("no_scheduler", address=scheduler)) from error
        with client:
            yield client
        return
    from monai_diffens.inferers.memory import available_memory

    count = workers or 1
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, _cores() // count))
    memory = available_memory()
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=0 if memory is None else memory // count,
            dashboard_address="127.0.0.1:0",
            security=True,
            env=dict.fromkeys(THREADS, threads),
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def do_case(job: Job, item: dict[str, Any]) -> Done:
    """Work on one case, in a worker."""
    from monai_diffens.engines.case_evaluator import failure_line
    from monai_diffens.inference import open_inference, restore_items

    began, cases = time.perf_counter(), OneCase([item])
    no_room = False
    with ONE_CASE, _listening() as told:
        try:
            network = _network(job.root, job.options.get("weights_file"), job.version, job.weights)
            own = {"network_def": network, "max_memory": _memory(job.options.get("max_memory"))}
            no_room = restore_items(open_inference(Path(job.root), {**job.options, **own}), cases)
        except Exception as error:
            known = isinstance(error, BundleRejected)
            cases.fail(item["case"], str(error) if known else failure_line(item["case"], error))
            log.error("failed: %s", cases.failures[item["case"]])
    return Done(cases.failures.get(item["case"]), time.perf_counter() - began, told, no_room)


@lru_cache(maxsize=1)
def _network(root: str, weights_file: str | None, version: str, weights: str | None) -> DiffEnsembler:
    """The network of a bundle, loaded once a worker.

    Raises:
        InputRejected: this machine has another version of this package, or other weights.
        BundleRejected: the bundle cannot be used.
    """
    from monai_diffens.bundle.before_run import check_bundle
    from monai_diffens.inference import open_inference
    from monai_diffens.networks.weights import load_weights

    _take_a_gpu()
    check_bundle(Path(root))
    path = Path(weights_file or Path(root) / WEIGHTS)
    if (package_version(), recorded(path)) != (version, weights):
        raise InputRejected(say("other_worker", here=package_version(), there=version))
    network: DiffEnsembler = open_inference(Path(root), {}).parser.get_parsed_content("network_def")
    load_weights(network, path)
    return network


def recorded(weights_file: str | os.PathLike[str]) -> str | None:
    """The hash that stands beside weights."""
    from monai_diffens.data.output_folder import Recipe

    return Recipe(weights_file=weights_file).weights_sha256()


def _outcome(future: Future, case: str) -> Done:
    """What a worker told; where none did, why."""
    from distributed import KilledWorker

    from monai_diffens.engines.case_evaluator import failure_line

    if future.status == "finished":
        done: Done = future.result()
        return done
    error = future.exception() if future.status == "error" else RuntimeError(future.status)
    line = say("workers_died", name=case) if isinstance(error, KilledWorker) else failure_line(case, error)
    return Done(line, 0.0, [(logging.ERROR, f"failed: {line}")], False)


def _memory(asked: float | None) -> float | None:
    """Limit in GiB of a case: what was asked for, else what the worker may take beside what it has."""
    import psutil
    from distributed import get_worker

    try:
        limit = get_worker().memory_manager.memory_limit
    except ValueError:  # in no worker
        limit = None
    if asked is not None or not limit:
        return asked
    return max(MEMORY_SHARE * limit - psutil.Process().memory_info().rss, 1) / GIB


def _take_a_gpu() -> None:
    """Of a machine with several, workers take them in turn."""
    import torch
    from distributed import get_worker

    if torch.cuda.is_available():
        try:
            name = get_worker().name
        except ValueError:
            return
        if isinstance(name, int):
            torch.cuda.set_device(name % torch.cuda.device_count())


@contextmanager
def _listening() -> Iterator[list[tuple[int, str]]]:
    """Lines of this package from WARNING on, which the command tells."""
    told: list[tuple[int, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append((record.levelno, record.getMessage()))

    handler, before = Keep(logging.WARNING), (log.handlers[:], log.propagate)
    log.handlers[:], log.propagate = [handler], False
    try:
        yield told
    finally:
        log.handlers[:], log.propagate = before


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
