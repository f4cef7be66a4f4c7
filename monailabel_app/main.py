"""A MONAI Label app for image-to-image bundles; see docs/monai_label.md.

    monailabel start_server --app monailabel_app --studies FOLDER --host 127.0.0.1

MONAI Label is made for segmentation: it brings a result back to the input's grid and to small integers. This
app lists every bundle of a folder of bundles and gives its result as it is.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.boundary import Boundary
from lib.bundles import find_bundles
from lib.companions import companions
from lib.confinement import inside, plain_name, workspace
from lib.infer import ImageToImageTask
from lib.origin import OriginGuard, is_loopback
from lib.refusals import as_reply
from lib.studies import ConfinedSessions, StudiesFolder
from lib.sweep import SweepWhenIdle
from lib.train import FineTuneTask, can_fine_tune
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.main import Main
from monailabel.utils.others.generic import strtobool

import monai_diffens
from monai_diffens.messages import InputRejected, say


class DiffEnsemblerApp(MONAILabelApp):
    """The app: which models there are, and what a request may reach.

    ``--conf bundles FOLDER`` names the folder of bundles, by default the ``bundles`` beside the app's;
    ``--conf models A,B`` takes only those.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        _quiet()
        os.umask(0o077)  # of this process, server or training: all it writes is of patients
        serving, remote = _check_host(conf)
        if "://" in studies:
            raise SystemExit(say("studies_not_folder"))
        if serving:  # what a killed server left
            for name in ("temporary", "requests", "training"):
                shutil.rmtree(workspace(studies, name))
        # What is in transit lies inside the studies folder too, readable for the server's user alone. The
        # server's folder is swept, so that a training's process has another.
        temporary = workspace(studies, "temporary" if serving else "training")
        tempfile.tempdir = str(temporary)
        folder = Path(conf.get("bundles") or Path(app_dir).parent / "bundles").resolve()
        self.bundles = find_bundles(folder, conf.get("models"))
        if not self.bundles:
            raise SystemExit(f"no bundle with configs/inference.json and models/model.pt in {folder}")
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="Diff-Ensembler",
            description="3D MRI super-resolution and contrast translation. For research use only. "
            "Results are synthetic - not for primary diagnosis.",
            version=monai_diffens.__version__,
        )
        if serving:
            web = importlib.import_module("monailabel.app").app
            swept = SweepWhenIdle(web.middleware_stack, temporary)
            guarded = OriginGuard(swept, any_host=remote)
            web.middleware_stack = Boundary(guarded, settings.MONAI_LABEL_API_STR)

    def init_datastore(self) -> StudiesFolder:
        """The studies folder."""
        return StudiesFolder(self.studies)

    def init_infers(self) -> dict[str, ImageToImageTask]:
        """One model for each bundle."""
        return {name: ImageToImageTask(path, self._datastore) for name, path in self.bundles.items()}

    def init_trainers(self) -> dict[str, FineTuneTask]:
        """One trainer for each bundle that can be fine-tuned from its own weights."""
        return {name: FineTuneTask(path) for name, path in self.bundles.items() if can_fine_tune(path)}

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Run a model on an image of the studies folder, or on one that was sent along.

        Args:
            request: ``model``, ``image`` (an id; a path only to what was sent along), parameters.
            datastore: unused; there is one.

        Returns:
            ``file``, the path of the result, and ``params``, what is known about it.
        """
        with as_reply():
            model = request.get("model")
            task = self._infers.get(model) if isinstance(model, str) else None
            if task is None:
                known = ", ".join(self._infers)
                raise InputRejected(say("unknown_model", name=repr(model)[:60], known=known))
            file, facts = task({**request, **self.inputs(request.get("image"))})
        return {"label": file, "tag": "original", "file": file, "params": facts}

    def inputs(self, image: Any) -> dict[str, Any]:
        """Where an image lies, after the checks on it.

        Raises:
            InputRejected: there is no such image, or it is a path out of the studies folder.
        """
        if not isinstance(image, str) or not image:
            raise InputRejected(say("outside_studies"))
        images = self._datastore.list_images()
        if image in images:
            found = {
                contrast: self._datastore.get_image_uri(other)
                for contrast, other in companions(image, images).items()
                if not self._datastore.is_synthetic(other)
            }
            return {"image": self._datastore.get_image_uri(image), "image_id": image, "companions": found}
        if os.path.isabs(image):
            path = inside(workspace(self.studies), image)  # sent along: this server put it there
            if path.is_dir():
                raise InputRejected(say("several_files", count=len(list(path.iterdir()))))
            return {"image": str(path), "image_id": None, "companions": {}}
        raise InputRejected(say("no_image", name=repr(plain_name(image))[:60]))

    def infer_wsi(self, request: Any, datastore: Any = None) -> None:
        """Not offered: it takes any path."""
        with as_reply():
            raise InputRejected(say("not_offered", what="whole-slide inference", instead="use /infer"))

    def batch_infer(self, request: Any, datastore: Any = None) -> None:
        """Not offered: the command line works on folders, and resumes."""
        instead = "run the bundle's inference with --input FOLDER"
        raise SystemExit(say("not_offered", what="batch inference", instead=instead))

    def model_file(self, model: str, validate: bool = True) -> None:
        """No file: weights are not downloaded, replaced or deleted through the server."""

    def bundle_path(self, model: str) -> str:
        """What a training's process gets on its search path; else a request could name any folder."""
        return self.app_dir

    def _load_sessions(self, load: bool = False) -> ConfinedSessions | None:
        if not load:
            return None
        return ConfinedSessions(str(workspace(self.studies, "sessions")), settings.MONAI_LABEL_SESSION_EXPIRY)


def _check_host(conf: Mapping[str, str]) -> tuple[bool, bool]:
    """Refuse to serve the network without authentication.

    Returns:
        Whether this process serves at all, and whether other machines.
    """
    if sys.argv[1:2] != ["start_server"]:
        return "monailabel.app" in sys.modules, False
    host = Main().args_parser().parse_args(sys.argv[1:]).host
    remote = not is_loopback(host)
    allowed = strtobool(conf.get("allow_remote", "false")) and settings.MONAI_LABEL_AUTH_ENABLE
    if remote and not allowed:
        raise SystemExit(say("open_to_network", host=host))
    return True, remote


def _quiet() -> None:
    """MONAI Label logs names and paths of images with each request; only its warnings are kept."""
    logging.getLogger("monailabel").setLevel(logging.WARNING)
