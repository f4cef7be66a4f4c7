"""The commands for release archives: pack, verify, download, seal; and what they turn down."""

import runpy
import signal
import stat
import sys
from pathlib import Path

import pytest
from archives import add

from monai_diffens.__main__ import main
from monai_diffens.bundle import archive as archive_module
from monai_diffens.cli_options import NOT_USABLE, SOME_FAILED, WRONG_USE
from monai_diffens.files import sha256_of
from monai_diffens.messages import say


def command(capsys, *arguments: object, status: int = 0) -> str:
    """What a command printed, after its exit with ``status``; of a failure what it said on stderr."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert ended.value.code == status, printed.err
    return printed.err if status else printed.out


def test_pack_verify_download_and_seal(source, tmp_path, place, capsys):
    out = command(capsys, "pack", source, "--output_dir", tmp_path / "dist")
    path = tmp_path / "dist" / "tiny_sr_v0.2.0.zip"
    assert f"{path}: " in out and "unpacked and verified" in out
    assert (tmp_path / "dist" / "SHA256SUMS").read_text() == f"{sha256_of(path)}  {path.name}\n"
    assert "verified" in command(capsys, "verify", path, "--sha256", sha256_of(path).upper())
    out = command(capsys, "download", path.as_uri(), "--bundle_dir", place, "--sha256", sha256_of(path))
    assert "fetched and verified, SHA-256 as given" in out
    root = place / "tiny_sr"
    assert "verified" in command(capsys, "verify", root)
    (root / "docs" / "README.md").write_text("mine")
    assert "docs/README.md (changed)" in command(capsys, "verify", root, status=NOT_USABLE)
    command(capsys, "seal", root)
    assert "verified" in command(capsys, "verify", root)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_of_a_download(tmp_path, monkeypatch, capsys, number, status):
    def stop(url: str, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        signal.raise_signal(number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background has none
    monkeypatch.setattr(archive_module, "download_url", stop)
    command(capsys, "download", "https://127.0.0.1/x.zip", "--bundle_dir", tmp_path, status=status)
    signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []


def test_one_line_on_the_command_line(tmp_path, capsys):
    line = command(capsys, "verify", tmp_path / "nowhere", status=NOT_USABLE)
    assert line == say("no_bundle", name=tmp_path / "nowhere") + "\n"
    line = command(capsys, "seal", tmp_path, status=NOT_USABLE)
    assert line == say("no_bundle", name=tmp_path) + "\n" and list(tmp_path.iterdir()) == []
    (tmp_path / "file\n").touch()
    words = ("download", "file:///nowhere", "--bundle_dir", tmp_path / "file\n")
    line = command(capsys, *words, status=SOME_FAILED)
    assert line == say("of_system", name=f"{tmp_path}/file\n", why="File exists") + "\n"
    line = command(capsys, "verify", tmp_path, "--sha256", "0" * 64, status=WRONG_USE)
    assert line == say("digest_of_folder", name=tmp_path) + "\n"


@pytest.mark.bad_input(29)
@pytest.mark.parametrize(
    ("name", "mode", "what"),
    [
        (
            "tiny_sr/../../escaped.txt",
            stat.S_IFREG | 0o644,
            "a path that leads out or is no plain name",
        ),
        (
            "/diffens_escaped.txt",
            stat.S_IFREG | 0o644,
            "a path that leads out or is no plain name",
        ),
        ("tiny_sr/configs/link", stat.S_IFLNK | 0o777, "a link or special file"),
    ],
)
def test_archives_that_lead_out_are_not_unpacked(archive, place, got, capsys, name, mode, what):
    bad = add(archive, name, b"/etc/passwd", mode)
    everything = sorted(place.parent.parent.rglob("*"))
    printed = command(capsys, "download", bad.as_uri(), "--bundle_dir", place, status=NOT_USABLE)
    line = printed.splitlines()[-1]
    got(line)
    assert line == f"changed.zip: it holds '{name}', {what}; nothing was unpacked"
    assert sorted(place.parent.parent.rglob("*")) == everything
    assert not Path("/diffens_escaped.txt").exists()


@pytest.mark.bad_input(30)
def test_a_misspelt_option_names_the_nearest(tmp_path, got, capsys):
    line = command(capsys, "verify", tmp_path, "--sha265", "0", status=WRONG_USE)
    got(line.strip())
    assert "did you mean --sha256?" in line and line.count("\n") == 1


def test_the_alias_is_the_same(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "monai_diffens.__main__")
    monkeypatch.setattr(sys, "argv", ["monai_diffens", "verify", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("monai_diffens", run_name="__main__", alter_sys=True)
    assert ended.value.code == NOT_USABLE
    assert capsys.readouterr().err == say("no_bundle", name=tmp_path) + "\n"
