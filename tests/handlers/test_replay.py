from types import SimpleNamespace

from ignite.engine import Engine

from monai_diffens.handlers.training import ReplayRenewal


def test_buffer_is_renewed_once_an_epoch():
    calls = []
    replay = SimpleNamespace(renew=lambda engine: calls.append(engine.state.epoch))
    engine = Engine(lambda engine, batch: batch)
    ReplayRenewal(replay).attach(engine)
    engine.run([0, 1, 2], max_epochs=3)
    assert calls == [1, 2, 3]
