"""The studies folder: MONAI Label's own local store, kept inside its folder and to NIfTI."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.utils.sessions import Sessions

from lib.confinement import inside, plain_name
from lib.refusals import as_reply
from monai_diffens.data.output_folder import is_ours
from monai_diffens.files import NIFTI_ENDINGS
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.input_gate import check_volume

__all__ = ["ConfinedSessions", "StudiesFolder"]


class StudiesFolder(LocalDatastore):
    """Images (.nii, .nii.gz) directly inside a folder.

    MONAI Label joins ids and tags that clients send to paths as they come, and follows links; here a name
    that is no plain file name, or a file that a link takes out of the folder, is refused before anything is
    opened.

    Args:
        folder: of the images.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._adding = threading.Lock()  # between the look whether a name is free and its use
        super().__init__(
            folder,
            extensions=[f"*{ending}" for ending in NIFTI_ENDINGS],
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def is_synthetic(self, image_id: str) -> bool:
        """Whether an image is a result: it says so itself, whatever became of the store's list."""
        return is_ours(Path(self.get_image_uri(image_id)))

    def get_image_uri(self, image_id: str) -> str:
        """Path of an image, links followed; empty where there is no such image."""
        with as_reply():
            path = super().get_image_uri(plain_name(image_id))
            return str(inside(self.folder, path)) if path else ""

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known about an image."""
        self._known(image_id)
        return super().get_image_info(image_id)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Path of a label, links followed; empty where there is no such label."""
        with as_reply():
            path = super().get_label_uri(plain_name(label_id), plain_name(label_tag))
            return str(inside(self.folder, path)) if path else ""

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take in a volume that passes the input gate, under a name that is free; returns its id.

        Raises:
            HTTPException: 409, an image has that name; 400, the volume or the name cannot be used.
        """
        path = Path(image_filename)
        with as_reply(), self._adding:
            if image_id:
                self._checked_name(image_id)
                if self.is_there(image_id):
                    raise HTTPException(409, say("image_there", name=repr(image_id)[:60]))
            _as_record(image_info)
            with _told_as(path, image_id):
                check_volume(path)
            return super().add_image(image_id, image_filename, image_info)

    def publish(self, image_id: str, result: Path, info: dict[str, Any]) -> str:
        """Make a result of this server an image; an earlier result of that name is replaced, a scan never.

        Raises:
            InputRejected: an image that is no result has that name.
        """
        with self._adding:
            self._checked_name(image_id)
            if self.is_there(image_id) and not self.is_synthetic(image_id):
                raise InputRejected(say("name_taken", name=image_id))
            check_volume(result)
            return super().add_image(image_id, str(result), info)

    def is_there(self, image_id: str) -> bool:
        """Whether an image has a name, listed or not, on file systems too that do not tell case."""
        taken = {image_id.casefold() + ending for ending in NIFTI_ENDINGS}
        listed = {name.casefold() for name in self.list_images()}
        return image_id.casefold() in listed or any(
            path.name.casefold() in taken for path in self.folder.iterdir()
        )

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Note something about an image."""
        self._known(image_id)
        with as_reply():
            super().update_image_info(image_id, _as_record(info))

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Note something about a label."""
        if not self.get_label_uri(label_id, label_tag):
            raise HTTPException(404, say("no_image", name=repr(label_id)[:60]))
        with as_reply():
            super().update_label_info(label_id, label_tag, _as_record(info))

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels."""
        self._known(image_id)
        super().remove_image(image_id)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Keep a label of an image; returns its id."""
        self._known(image_id)
        with as_reply():
            if not label_filename.endswith(NIFTI_ENDINGS):
                instead = "send .nii or .nii.gz"
                raise InputRejected(say("not_offered", what="a label of this kind", instead=instead))
            _as_record(label_info)
            with _told_as(Path(label_filename), "label"):
                check_volume(label_filename, mask=True)  # by what it holds: anything can be called .nii
            labels = inside(self.folder, self._datastore.label_path(plain_name(label_tag)))
            for ending in NIFTI_ENDINGS:
                inside(self.folder, labels / f"{image_id}{ending}")
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label."""
        self.get_label_uri(label_id, label_tag)
        super().remove_label(label_id, label_tag)

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Pairs of image and label, for the download of a whole data set."""
        pairs = super().datalist(full_path)
        with as_reply():
            for pair in pairs:
                for path in pair.values():
                    inside(self.folder, self.folder / path)
        return pairs

    def _checked_name(self, image_id: str) -> None:
        plain_name(image_id)
        for ending in NIFTI_ENDINGS:
            # the store finds an id again by taking the endings out of a file's name
            if self._to_id(image_id + ending)[0] != image_id:
                raise InputRejected(say("bad_id", name=repr(image_id)[:60]))
            inside(self.folder, self.folder / f"{image_id}{ending}")  # not through a link of that name

    def _known(self, image_id: str) -> None:
        if not self.get_image_uri(image_id):
            raise HTTPException(404, say("no_image", name=repr(image_id)[:60]))

    def _list_files(self, path: str, patterns: Any) -> dict[str, str]:
        listed = super()._list_files(path, patterns)
        return {name: file for name, file in listed.items() if self._lies_here(Path(path) / file)}

    def _lies_here(self, path: Path) -> bool:
        try:
            plain_name(path.name)
            return inside(self.folder, path).is_file()
        except InputRejected:
            return False


@contextmanager
def _told_as(path: Path, name: str) -> Iterator[None]:
    """Say a rejection of what was sent with the name that its sender knows: it lies under a random one."""
    try:
        yield
    except InputRejected as error:
        raise InputRejected(str(error).replace(path.name, name or "upload")) from error


def _as_record(info: Any) -> Any:
    if info is not None and not isinstance(info, dict):
        raise InputRejected(say("bad_request"))
    return info or {}


class ConfinedSessions(Sessions):
    """Volumes that viewers send for one run, under ids that are this server's own."""

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        """What was sent under an id; None for an unknown one."""
        return super().get_session(_session_id(session_id), update_ts, fetch_cache)

    def remove_session(self, session_id: str) -> None:
        """Forget what was sent under an id, and delete it."""
        super().remove_session(_session_id(session_id))

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> Any:
        """Keep a volume for a while; archives are not unpacked."""
        if uncompress:
            line = say("not_offered", what="unpacking an archive", instead="send the volume")
            raise HTTPException(400, line)
        return super().add_session(data_file, expiry, False, session_id and _session_id(session_id))


def _session_id(session_id: str) -> str:
    if not re.fullmatch(r"[0-9a-f-]{36}", str(session_id)):
        raise HTTPException(404, say("bad_id", name=repr(session_id)[:60]))
    return session_id
