"""What an epoch leaves behind: a row of the CSV, a line, a bar that begins where the run stands."""

import csv
import logging

import pytest
from ignite.engine import Engine, Events

from monai_diffens.handlers.record import FIELDS, TrainingLog


def run(path, losses: list[list[float]], done: int = 0, state: dict[str, float] | None = None) -> TrainingLog:
    """A training of as many epochs as there are lists of losses, the first ``done`` of them done before."""
    steps = len(losses[0])

    def step(engine, batch):
        return [{"loss": losses[engine.state.epoch - 1][batch]}]

    engine, log = Engine(step), TrainingLog(path, hide_bar=False)
    if state is not None:
        log.load_state_dict(state)

    @engine.on(Events.STARTED)
    def resume(engine):
        engine.state.epoch, engine.state.iteration = done, done * steps

    log.attach(engine)
    engine.run(range(steps), max_epochs=len(losses))
    return log


def rows(path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_each_epoch_is_a_row_and_a_line(tmp_path, caplog):
    caplog.set_level(logging.INFO, "monai_diffens")
    path = tmp_path / "new" / "training.csv"
    log = run(path, [[1.0, 3.0], [0.5, 0.5]])
    head, *found = rows(path)
    assert tuple(head) == FIELDS
    assert [(row[0], row[1], float(row[4])) for row in found] == [("1", "2", 2.0), ("2", "4", 0.5)]
    assert float(found[1][2]) == pytest.approx(log.seconds / 3600, abs=1e-4)
    assert [(record.args[0], record.args[2]) for record in caplog.records] == [(1, 2.0), (2, 0.5)]
    assert log.state_dict() == {"seconds": log.seconds, "loss": 0.5}


def test_a_resumed_run_replaces_the_rows_of_what_it_does_again_and_counts_on(tmp_path):
    path = tmp_path / "training.csv"
    run(path, [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    again = run(path, [[1.0, 1.0], [8.0, 8.0]], done=1, state={"seconds": 7200.0, "loss": 1.0})
    assert [(row[0], float(row[4])) for row in rows(path)[1:]] == [("1", 1.0), ("2", 8.0)]
    assert again.seconds >= 7200 and float(rows(path)[-1][2]) >= 2
    assert (again.bar.total, again.bar.initial, again.bar.n) == (4, 2, 4)


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(None, [[1.0]]).loss == 1.0
    assert list(tmp_path.iterdir()) == []
