"""A MONAI Deploy application that restores one scan with a released bundle; see docs/clinical.md.

    python monaideploy_app/app.py --model BUNDLE --input SCAN --output FOLDER

``BUNDLE`` is the folder that a release zip unpacks to. It brings the package ``monai_diffens`` along, so that
nothing of this project need be installed. For research use only: results are synthetic - not for primary
diagnosis.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Image, IOType
from monai.deploy.operators import IOMapping
from monai.transforms import Compose
from operators import BundleOperator, ScanLoaderOperator, VolumeWriterOperator


class RestoreApp(Application):
    """Load, restore, write: three operators in a row, for one case."""

    def __init__(self, context: AppContext, bundle: ConfigParser, case: dict[str, Any]) -> None:
        """Take the arguments, the opened bundle and one of its cases."""
        self.context, self.bundle, self.case = context, bundle, case
        super().__init__()

    def compose(self) -> None:
        """Put the operators together."""
        load = self.parts("preprocessing", "LoadScan")
        save = self.parts("postprocessing", "SaveVolume", "SaveDicomSeries")
        loader = ScanLoaderOperator(self, CountCondition(self, 1), load=load, case=self.case, name="loader")
        restorer = BundleOperator(
            self,
            app_context=self.context,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            bundle_path=self.context.model_path,
            name="restorer",
        )
        writer = VolumeWriterOperator(self, save=save, name="writer")
        self.add_flow(loader, restorer, {("image", "image")})
        self.add_flow(restorer, writer, {("pred", "pred")})

    def parts(self, id: str, *names: str) -> Compose:
        """The transforms of a list in the bundle whose names begin with one of ``names``."""
        transforms = self.bundle.get_parsed_content(id).transforms
        return Compose([one for one in transforms if type(one).__name__.startswith(names)])


def open_bundle(root: Path, source: str, output: str) -> ConfigParser:
    """Check a bundle as its own command line does, and read its configuration.

    Raises:
        SystemExit: with one line, where a file is not as released, a version does not fit, or there is no
            package to check with.
    """
    sys.path.insert(0, str(root))
    if importlib.util.find_spec("monai_diffens") is None:
        raise SystemExit(
            f"{root.name}: it brings no package monai_diffens; unpack a release zip and give its folder"
        )
    importlib.import_module("monai_diffens.bundle.before_run").check_before_run(root)
    parser = ConfigParser()
    parser.read_config(root / "configs" / "inference.json")
    parser.update({"bundle_root": str(root), "input": source, "output_dir": output})
    return parser


def main() -> None:
    """Restore one scan; status 1 and one line where that cannot be done.

    Raises:
        SystemExit: nothing was restored, or not all of it was written.
    """
    logging.captureWarnings(True)
    # MONAI Deploy logs paths, which may name a patient, from level INFO on
    context = Application.init_app_context([sys.argv[0], "--log-level", "WARN", *sys.argv[1:]])
    context.models = None  # of a folder it makes a model that holds no network; now the operator loads one
    bundle = open_bundle(Path(context.model_path), context.input_path, context.output_path)
    if bundle.get("contrasts"):
        raise SystemExit("this application loads one volume; run this bundle by monai.bundle run inference")
    cases = bundle.get_parsed_content("cases")
    with importlib.import_module("monai_diffens.bundle.before_run").ended_in_a_line():
        _ = cases.items
    if len(cases.items) > 1:
        raise SystemExit(f"{len(cases.items)} scans; this application takes one at a time")
    for case in cases.items:
        try:
            RestoreApp(context, bundle, case).run()
        except Exception as error:
            reason = importlib.import_module("monai_diffens.engines.case_evaluator").failure_line
            cases.fail(case["case"], reason(case["case"], error))
    sys.exit(cases.finish())


if __name__ == "__main__":
    main()
