"""The cases of a folder, done by workers of dask: real clusters of processes on this machine, tiny scans."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from torture import make_scans
from typer.testing import CliRunner

from monai_diffens import workers
from monai_diffens.cli import app
from monai_diffens.cli_options import WRONG_USE
from monai_diffens.inference import cases_of, open_inference, run_inference
from monai_diffens.messages import InputRejected, say
from monai_diffens.workers import Crew, Done, Job, absolute, do_case, job_of, on_cases, workers_of

pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
psutil = pytest.importorskip("psutil")

CASES = 6
OPTIONS = ("--no_report", "--json_lines", "--fusion", "axial")


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Six pieces of a brain, and a file that is no scan."""
    folder = tmp_path_factory.mktemp("cohort") / "scans"
    make_scans(folder, CASES)
    (folder / "broken.nii.gz").write_bytes(b"not a scan")
    return folder


@pytest.fixture(scope="module")
def alone(scans, bundle, tmp_path_factory) -> Path:
    """What one process makes of them."""
    out = tmp_path_factory.mktemp("alone") / "out"
    run = ["sr", str(scans), "-o", str(out), "--bundle_root", str(bundle), *OPTIONS]
    assert CliRunner().invoke(app, run).exit_code == 1
    return out


def contents(out: Path) -> dict[str, bytes]:
    """Bytes of every visible file by name."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name[0] != "."}


def given(bundle: Path, scans: Path, out: Path) -> dict[str, object]:
    paths = {"input": str(scans), "output_dir": str(out)}
    return absolute({**paths, "report": False, "fusion": "axial"})


@pytest.mark.slow
def test_two_workers_make_the_files_of_one_process(scans, alone, bundle, tmp_path):
    run = ["sr", str(scans), "-o", str(tmp_path / "out"), "--bundle_root", str(bundle), *OPTIONS]
    done = CliRunner().invoke(app, [*run, "--workers", "2"], catch_exceptions=False)
    assert done.exit_code == 1  # the file that is no scan
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["case"] for line in lines[:-1]} == {f"case{number:02d}" for number in range(CASES)}
    assert lines[-1]["done"] == CASES and len(lines[-1]["rejected"]) == 1 and lines[-1]["failed"] == []
    assert contents(tmp_path / "out") == contents(alone)
    again = CliRunner().invoke(app, [*run, "--workers", "2"], catch_exceptions=False)
    assert json.loads(again.stdout.splitlines()[-1])["skipped"] == CASES


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(scans, alone, bundle, tmp_path):
    """Three workers; when the first case ends, one of them is killed (SIGKILL) at its work."""
    killed = []

    def on_end(_: object) -> None:
        if not killed:
            children = psutil.Process().children(recursive=True)
            busy = [child for child in children if any("spawn_main" in word for word in child.cmdline())]
            killed.append(busy[0].pid)
            os.kill(busy[0].pid, signal.SIGKILL)

    options = given(bundle, scans, tmp_path / "out")
    workflow = open_inference(bundle, options)
    Crew(job_of(bundle, options), workers_of(3, None), on_end).take_over(workflow)
    cases, status = run_inference(workflow)
    assert len(killed) == 1
    assert status == 1 and cases.failures == {}
    assert contents(tmp_path / "out") == contents(alone)


def test_a_case_that_ends_its_workers_fails_and_the_others_go_on():
    def work(job: Job, item: dict[str, object]) -> Done:
        if item["case"] == "b":
            time.sleep(1)  # what ended before is known
            os._exit(1)
        return Done(None, 0.5, [], False)

    failures, ended = {}, []
    cases = SimpleNamespace(items=[{"case": name} for name in "abc"], fail=failures.__setitem__)
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        on_cases(Crew(Job("."), workers_of(1, None), ended.append, work=work), cases).run()
    assert failures == {"b": say("workers_died", name="b")}
    assert sorted(end.case for end in ended) == ["a", "b", "c"]


def test_a_worker_does_a_case_and_tells_why_it_cannot(scans, alone, bundle, tmp_path):
    """In this process, as a worker would."""
    options = given(bundle, scans, tmp_path / "out")
    workflow = open_inference(bundle, options)
    items = cases_of(workflow).items
    job = job_of(bundle, options)
    first = do_case(job, items[0])
    assert first.failure is None and first.seconds > 0 and not first.no_room
    assert contents(tmp_path / "out").items() <= contents(alone).items()
    assert len(contents(tmp_path / "out")) == 2
    lost = do_case(job, {**items[1], "image": str(tmp_path / "gone.nii.gz")})
    assert lost.failure is not None and lost.failure.startswith("gone.nii.gz")
    other = do_case(Job(job.root, job.options, "0.0.0", job.weights), items[1])
    assert other.failure == say("other_worker", here=job.version, there="0.0.0")


def test_crews_that_cannot_be_had(scans, bundle, tmp_path, monkeypatch):
    run = ["sr", str(scans), "-o", str(tmp_path / "out"), "--bundle_root", str(bundle)]
    both = CliRunner().invoke(app, [*run, "--workers", "2", "--scheduler", "tcp://127.0.0.1:9"])
    assert both.exit_code == WRONG_USE and both.stderr.strip() == say("two_crews")
    monkeypatch.setattr(workers, "PATIENCE_S", 0.2)
    for address in ("tcp://127.0.0.1:9", "tls://127.0.0.1:9", "ucx://a", "tcp://[::1"):
        with pytest.raises(InputRejected) as refused, workers_of(None, address):
            pass
        assert str(refused.value) == say("no_scheduler", address=address)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputRejected) as refused:
        workers.check_workers(2, None)
    assert str(refused.value) == say("workers_of_workers")
    monkeypatch.setattr(workers, "find_spec", lambda name: None)
    with pytest.raises(InputRejected) as refused:
        workers.check_workers(2, None)
    assert str(refused.value) == say("no_cluster_extra")
