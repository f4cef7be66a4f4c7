"""Release archives: the same bytes every time, unpacked whole or not at all, never outside."""

import hashlib
import os
import shutil
import socket
import stat
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest
from archives import add, rewrite

from monai_diffens.bundle.archive import LARGEST, check_members, fetch, pack, unpack, write_digests
from monai_diffens.bundle.folder import MANIFEST, PACKAGE_DIR, read_manifest
from monai_diffens.files import sha256_of
from monai_diffens.messages import BundleRejected


def refusal(place: Path, archive: Path, sha256: str | None = None) -> str:
    """The line that unpacking ends with; nothing is written, neither inside nor outside."""
    everything = sorted(place.parent.parent.rglob("*"))
    with pytest.raises(BundleRejected) as caught:
        unpack(archive, place, sha256)
    assert sorted(place.parent.parent.rglob("*")) == everything
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_archive_holds_bundle_manifest_and_package(archive):
    assert archive.name == "tiny_sr_v0.2.0.zip"
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
        assert names == sorted(names) and {name.split("/")[0] for name in names} == {"tiny_sr"}
        manifest = dict(
            reversed(line.split("  "))
            for line in file.read(f"tiny_sr/{MANIFEST}").decode().split("\n")
            if line
        )
        assert {f"tiny_sr/{name}" for name in manifest} == set(names) - {f"tiny_sr/{MANIFEST}"}
        for name, digest in manifest.items():
            assert hashlib.sha256(file.read(f"tiny_sr/{name}")).hexdigest() == digest
    own = {
        f"tiny_sr/monai_diffens/{p.relative_to(PACKAGE_DIR).as_posix()}" for p in PACKAGE_DIR.rglob("*.py")
    }
    assert own < set(names)
    for part in ("LICENSE", "configs/inference.json", "docs/data_license.txt", "models/model.pt"):
        assert f"tiny_sr/{part}" in names
    assert not [name for name in names if "/output/" in name or "train/" in name or "__pycache__" in name]


def test_the_same_bytes_whenever_and_wherever(archive, source, tmp_path):
    copy = tmp_path / "other" / "tiny_sr"
    shutil.copytree(source, copy, copy_function=shutil.copyfile)
    for number, path in enumerate(sorted(copy.rglob("*"))):
        path.chmod(0o700)
        os.utime(path, (10**9 + number, 10**9 + number))
    (copy / "docs" / "__pycache__").mkdir()
    (copy / "docs" / "__pycache__" / "x.pyc").touch()
    assert pack(copy, tmp_path / "elsewhere").read_bytes() == archive.read_bytes()


def test_digests_are_those_of_sha256sum(archive):
    write_digests([archive])
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=archive.parent, check=False)
    assert done.returncode == 0


def test_unpacked_it_is_what_was_packed(archive, source, place):
    root = unpack(archive, place, sha256_of(archive))
    assert [path.name for path in place.iterdir()] == ["tiny_sr"] and root == place / "tiny_sr"
    assert subprocess.run(["sha256sum", "--quiet", "-c", MANIFEST], cwd=root, check=False).returncode == 0
    for name in read_manifest(root):
        if not name.startswith("monai_diffens/"):
            assert (root / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize(
    "missing", ["LICENSE", "docs/data_license.txt", "models/model.pt", "models/model.pt.sha256"]
)
def test_incomplete_bundles_are_not_packed(source, tmp_path, missing):
    (source / missing).unlink()
    with pytest.raises(BundleRejected, match=f"tiny_sr: {missing} is missing"):
        pack(source, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"others")])
def test_weights_that_are_not_the_recorded_ones_are_not_packed(source, tmp_path, change):
    change(source / "models" / "model.pt")
    with pytest.raises(BundleRejected, match=r"models/model.pt"):
        pack(source, tmp_path / "dist")


# Archives that are not unpacked


@pytest.mark.parametrize(
    "name",
    [
        "../escaped.txt",
        "tiny_sr/../../escaped.txt",
        "tiny_sr/configs/../../../escaped.txt",
        "/diffens_escaped.txt",
        "//diffens_escaped.txt",
        "C:/escaped.txt",
        "C:escaped.txt",
        "..\\escaped.txt",
        "tiny_sr\\..\\..\\escaped.txt",
        "tiny_sr//double.txt",
        "tiny_sr/./here.txt",
        "tiny_sr/line\nbreak.txt",
        "..",
        "",
        "tiny_sr/NUL",
        "tiny_sr/configs/aux.json",
        "tiny_sr/LICENSE.",
        "tiny_sr/LICENSE ",
        "tiny_sr/LICENSE::$DATA",
        "tiny_sr/configs:stream",
        "tiny_sr/what?.txt",
        "tiny_sr/gepj\u202egnp.txt",
        "tiny_sr/" + "x" * 250,
        "tiny_sr/\0.txt",
    ],
)
def test_row_29_paths_that_lead_out(archive, place, name):
    line = refusal(place, add(archive, name))
    assert "a path that leads out or is no plain name; nothing was unpacked" in line
    assert not Path("/diffens_escaped.txt").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_row_29_links_and_special_files(archive, place, kind):
    line = refusal(place, add(archive, "tiny_sr/configs/link", b"/etc/passwd", kind | 0o777))
    assert "'tiny_sr/configs/link', a link or special file; nothing was unpacked" in line


@pytest.mark.parametrize("name", ["tiny_sr/LICENSE", "tiny_sr/license"])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_names_that_are_there_twice(archive, place, name):
    assert "twice; nothing was unpacked" in refusal(place, add(archive, name))


@pytest.mark.parametrize(
    "name",
    [
        "tiny_sr/Configs/evil.json",
        "Tiny_SR/configs/evil.json",
        "tiny_sr/CONFIGS/",
        "tiny_sr/monai_diffenS/x.py",
        "tiny_sr/docs/na\u0131ve/../x",
        "tiny_sr/LICENSE/x.txt",
        "tiny_sr/license/x.txt",
        "tiny_sr/configs",
        "tiny_sr/Docs",
    ],
)
def test_names_that_are_one_on_some_systems(archive, place, name):
    refusal(place, add(archive, name))


def test_names_that_differ_by_the_composition_of_a_sign(archive, place):
    first = add(archive, "tiny_sr/docs/caf\u00e9.txt")
    shutil.copy(first, archive)
    assert "twice" in refusal(place, add(archive, "tiny_sr/docs/cafe\u0301.txt"))


def test_a_bomb(archive, place):
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        file.writestr("tiny_sr/docs/zeros.txt", bytes(60 << 20))
    assert "packed too tightly" in refusal(place, archive)


def test_a_bomb_that_lies_about_its_size(archive, place):
    """The table of contents tells 10 bytes, the stream holds more: no more than the 10 are written."""
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("tiny_sr/docs/zeros.txt", bytes(1 << 20))
    content = archive.read_bytes()
    size = (1 << 20).to_bytes(4, "little")
    archive.write_bytes(content.replace(size, (10).to_bytes(4, "little")))
    assert "damaged" in refusal(place, archive)


def test_too_many_members():
    with pytest.raises(BundleRejected, match="10001 members"):
        check_members([zipfile.ZipInfo(f"tiny_sr/{number}") for number in range(10_001)], "a.zip")


def test_a_member_of_two_names(archive, place):
    """The name in the table of contents and the one before the content differ."""
    path = add(archive, "tiny_sr/docs/one.txt")
    content = path.read_bytes()
    at = content.rindex(b"tiny_sr/docs/one.txt")
    path.write_bytes(content[:at] + b"tiny_sr/docs/two.txt" + content[at + 20 :])
    assert "damaged" in refusal(place, path)
    member = zipfile.ZipInfo("tiny_sr/docs/one.txt")
    member.filename = "tiny_sr/torch.py"
    with pytest.raises(BundleRejected, match="two names"):
        check_members([member], "a.zip")


@pytest.mark.parametrize("name", ["docs/evil.npy", "docs/x.pkl", "models/model.ts", "docs/page.html", "x.pt"])
def test_files_of_a_kind_that_can_hold_a_program(archive, source, place, name):
    def change(member, content):
        if not member.filename.endswith(MANIFEST):
            return member, content
        return member, content + f"{hashlib.sha256(b'x').hexdigest()}  {name}\n".encode()

    both = add(rewrite(archive, change).replace(archive), f"tiny_sr/{name}")
    assert f"first: {name}" in refusal(place, both)
    assert (unpack(both, place, sha256_of(both)) / name).is_file()  # whoever published it vouches for it


@pytest.mark.parametrize("name", ["other/file.txt", "file.txt"])
def test_more_than_one_top_folder(archive, place, name):
    assert "2 things at its top, one top folder is needed" in refusal(place, add(archive, name))


def test_an_empty_archive(tmp_path, place):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "0 things at its top" in refusal(place, tmp_path / "empty.zip")


def test_encrypted_and_oversized_members():
    member = zipfile.ZipInfo("tiny_sr/a")
    member.flag_bits |= 1
    with pytest.raises(BundleRejected, match="encrypted"):
        check_members([member], "a.zip")
    member = zipfile.ZipInfo("tiny_sr/a")
    member.file_size = member.compress_size = LARGEST + 1
    with pytest.raises(BundleRejected, match=r"unpacks to 2\.1 GB, more than"):
        check_members([member], "a.zip")


def test_members_packed_in_a_rare_way(archive, place):
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_BZIP2) as file:
        file.writestr("tiny_sr/docs/more.txt", "more")
    assert "'tiny_sr/docs/more.txt', packed in a rare way; nothing was unpacked" in refusal(place, archive)


@pytest.mark.parametrize("kept", [0, 100, 0.3, 0.9, -1])
def test_half_a_download(archive, place, kept):
    content = archive.read_bytes()
    cut = archive.with_name("cut.zip")
    cut.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    assert refusal(place, cut) == "cut.zip: not a whole zip archive (a download cut short?); fetch it again"


def test_a_damaged_member_that_was_packed_again(archive, place):
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("tiny_sr/docs/more.txt", b" ".join(b"%d" % number for number in range(5000)))
        begin = file.infolist()[-1].header_offset + 100
    content = bytearray(archive.read_bytes())
    content[begin : begin + 100] = bytes(byte ^ 0x5A for byte in content[begin : begin + 100])
    archive.write_bytes(content)
    assert "tiny_sr/docs/more.txt in it is damaged; fetch it again" in refusal(place, archive)


def test_a_damaged_member(archive, place):
    content = archive.read_bytes()
    damaged = archive.with_name("damaged.zip")
    damaged.write_bytes(content.replace(b"not really weights", b"not really weighed"))
    assert refusal(place, damaged) == "damaged.zip: tiny_sr/models/model.pt in it is damaged; fetch it again"


def test_wrong_digest(archive, place):
    line = refusal(place, archive, "0" * 64)
    assert line == (
        f"tiny_sr_v0.2.0.zip: SHA-256 is {sha256_of(archive)}, not {'0' * 64}: damaged or replaced; "
        "nothing was unpacked"
    )


def test_changed_content(archive, place):
    changed = rewrite(
        archive, lambda m, content: (m, b"others" if m.filename.endswith("model.pt") else content)
    )
    assert "1 files are not as released, first: models/model.pt (changed)" in refusal(place, changed)
    missing = rewrite(archive, lambda m, content: None if m.filename.endswith("LICENSE") else (m, content))
    assert "1 files are not as released, first: LICENSE (missing)" in refusal(place, missing)
    bare = rewrite(archive, lambda m, content: None if m.filename.endswith(MANIFEST) else (m, content))
    assert "manifest.sha256 is missing" in refusal(place, bare)


def test_more_files_than_the_manifest_has(archive, place):
    assert "first: torch.py; remove them" in refusal(place, add(archive, "tiny_sr/torch.py"))


def test_never_over_something(archive, place):
    (place / "tiny_sr").mkdir()
    (place / "tiny_sr" / "mine.txt").touch()
    assert "already there and not empty; remove it first" in refusal(place, archive)
    (place / "tiny_sr" / "mine.txt").unlink()
    assert unpack(archive, place) == place / "tiny_sr"


def test_never_through_a_link(archive, place, tmp_path):
    (tmp_path / "outside").mkdir()
    (place / "tiny_sr").symlink_to(tmp_path / "outside")
    assert "already there" in refusal(place, archive)


def test_an_address_that_does_not_answer(place):
    urls = [(place / "nowhere.zip").as_uri(), "nonsense", "http://127.0.0.1:9/x.zip"]
    for url in [*urls, "http://127.0.0.1:9/a\nb.zip", "http://127.0.0.1:x/x.zip"]:
        with pytest.raises(BundleRejected, match=r": cannot be fetched \(.+\); check the address"):
            fetch(url, place, progress=False)
    assert list(place.iterdir()) == []


def test_what_answers_is_no_web_server(place):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(BundleRejected, match="cannot be fetched"):
            fetch(f"http://127.0.0.1:{server.getsockname()[1]}/x.zip", place, progress=False)
    assert list(place.iterdir()) == []
