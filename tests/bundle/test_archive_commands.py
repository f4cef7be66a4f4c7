"""The commands for release archives: pack, verify, download, seal; and what they turn down."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from archives import add

from monai_diffens.__main__ import main
from monai_diffens.bundle.manifest import sha256_of


def command(capsys, *arguments: object) -> str:
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


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
    with pytest.raises(SystemExit, match=r"docs/README\.md \(changed\)"):
        main(["verify", str(root)])
    command(capsys, "seal", root)
    assert "verified" in command(capsys, "verify", root)


def test_one_line_on_the_command_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "monai_diffens", "verify", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "no bundle there" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
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
def test_archives_that_lead_out_are_not_unpacked(archive, place, got, name, mode, what):
    bad = add(archive, name, b"/etc/passwd", mode)
    everything = sorted(place.parent.parent.rglob("*"))
    command = [sys.executable, "-m", "monai_diffens", "download", bad.as_uri(), "--bundle_dir", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = done.stderr.splitlines()[-1]
    got(line)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert line == f"changed.zip: it holds '{name}', {what}; nothing was unpacked"
    assert sorted(place.parent.parent.rglob("*")) == everything
    assert not Path("/diffens_escaped.txt").exists()


@pytest.mark.slow
@pytest.mark.bad_input(30)
def test_a_misspelt_option_names_the_nearest(tmp_path, got):
    command = [sys.executable, "-m", "monai_diffens", "export", str(tmp_path), "--fusoin", "mean"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    got(done.stderr.splitlines()[-1])
    assert done.returncode == 2 and "did you mean --fusion?" in done.stderr.splitlines()[-1]
