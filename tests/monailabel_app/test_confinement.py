import pytest

from monai_diffens.messages import InputRejected


@pytest.fixture(scope="module")
def confinement(app_module):
    return app_module("confinement")


@pytest.mark.parametrize("name", ["sub-01_T1w", "scan 1", "a..b", "Größe"])
def test_plain_names(confinement, name):
    assert confinement.plain_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "x" * 300,
        "ä" * 100,
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "../a",
        "/etc/passwd",
        "a\\b",
        "a\0",
        "a\nb",
        None,
    ],
)
def test_names_that_are_not_plain(confinement, name):
    with pytest.raises(InputRejected, match="not a plain file name"):
        confinement.plain_name(name)


def test_inside(confinement, tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    (tmp_path / "secret.nii").touch()
    (studies / "scan.nii").touch()
    (studies / "link.nii").symlink_to(studies / "scan.nii")
    (studies / "way_out.nii").symlink_to(tmp_path / "secret.nii")
    (studies / "loop.nii").symlink_to(studies / "loop.nii")
    assert confinement.inside(studies, studies / "link.nii") == (studies / "scan.nii").resolve()
    for path in (
        "/etc/passwd",
        studies / ".." / "secret.nii",
        studies / "way_out.nii",
        f"{studies}2/a",
        "a\0",
    ):
        with pytest.raises(InputRejected, match="not an image of the studies folder"):
            confinement.inside(studies, path)


def test_the_workspace_is_private_and_no_link(confinement, tmp_path):
    folder = confinement.workspace(tmp_path, "weights", "model")
    assert folder == tmp_path / ".monailabel" / "weights" / "model"
    assert all(path.stat().st_mode & 0o777 == 0o700 for path in (folder, *list(folder.parents)[:2]))
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "studies"
    other.mkdir()
    (other / ".monailabel").symlink_to(tmp_path)
    with pytest.raises(InputRejected):
        confinement.workspace(other, "weights")


def test_a_link_where_there_can_be_one(confinement, tmp_path):
    source = tmp_path / "scan.nii"
    source.write_bytes(b"voxels")
    confinement.link_or_copy(source, tmp_path / "deeper" / "scan.nii")
    assert (tmp_path / "deeper" / "scan.nii").read_bytes() == b"voxels"
