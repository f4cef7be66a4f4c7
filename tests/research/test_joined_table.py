"""Tables of several processes become the one that a single process writes."""

import pytest

from monai_diffens.engines.processes import local_device, start_processes
from monai_diffens.messages import say
from research.studies.joined_table import join_tables, own_folder, own_share
from research.studies.sweep import KEYS
from research.studies.tables import append_row, read_table, weights_mark


def row(case: str, method: str, seconds: float) -> dict:
    return dict(zip(KEYS, ("x4", case, method, "1", "", "1"), strict=True)) | {
        "psnr": 20.5,
        "seconds": seconds,
    }


def test_tables_are_joined_in_the_order_of_the_items(tmp_path):
    shares = {"0": ["a", "c"], "1": ["b", "gone"], "2": ["a"]}  # 2 is left from a run of three processes
    for number, cases in shares.items():
        folder = tmp_path / f"process_{number}"
        folder.mkdir()
        for case in cases:
            for method in ("cubic", "mean"):
                append_row(folder / "sweep.csv", row(case, method, float(number)))
    table = join_tables(tmp_path, [{"case": case} for case in "abc"])
    found = [(each["case"], each["method"]) for each in read_table(table)]
    assert found == [(case, method) for case in "abc" for method in ("cubic", "mean")]


def test_one_process_has_everything(tmp_path, capsys):
    items = [{"case": case} for case in "abc"]
    assert own_share(items) == items
    assert own_folder(tmp_path) == str(tmp_path / "process_0")
    assert local_device().type in ("cpu", "cuda")
    with pytest.raises(SystemExit) as stopped:
        start_processes()
    assert stopped.value.code == 1 and capsys.readouterr().err.strip() == say("no_torchrun")


def test_rows_of_other_weights_are_left_out(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    mark = weights_mark(tmp_path / "model.pt")
    for number, (case, weights) in enumerate((("a", mark), ("b", "0123456789ab"), ("c", mark))):
        folder = tmp_path / f"process_{number}"
        folder.mkdir()
        append_row(folder / "sweep.csv", row(case, "mean", 1.0) | {"weights": weights})
    table = join_tables(tmp_path, [{"case": case} for case in "abc"], [tmp_path / "model.pt"])
    assert [each["case"] for each in read_table(table)] == ["a", "c"]


def test_methods_may_have_weights_of_their_own(tmp_path):
    files = {}
    for name in ("model.pt", "regression.pt"):
        files[name] = tmp_path / name
        files[name].write_bytes(name.encode())
    marks = {"mean": weights_mark(files["model.pt"]), "regression": weights_mark(files["regression.pt"])}
    (tmp_path / "process_0").mkdir()
    for case, mark in (("a", marks["regression"]), ("b", marks["mean"])):
        for method in marks:
            append_row(tmp_path / "process_0" / "sweep.csv", row(case, method, 1.0) | {"weights": mark})
    own = {"regression": [files["regression.pt"]]}
    table = join_tables(tmp_path, [{"case": case} for case in "ab"], [files["model.pt"]], own)
    assert [(each["case"], each["method"]) for each in read_table(table)] == [
        ("a", "regression"),
        ("b", "mean"),
    ]
