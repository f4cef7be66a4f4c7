"""For 3D Slicer's Python console: send a loaded volume to the server and load the result as a volume.

NOT TESTED IN 3D SLICER: it follows Slicer's documentation; the request that it sends to the server is
tested (`make label-test`). It needs no extension: that of MONAI Label loads every result as a segmentation.

    exec(open("/path/to/monailabel_app/slicer/sharpen_volume.py").read())
    sharpen("MyVolume", num_steps=1)

For research use only: the result is synthetic - not for primary diagnosis.
"""

import json
import os
import tempfile

import requests  # comes with Slicer
import slicer

SERVER = "http://127.0.0.1:8000"


def sharpen(volume_name, model="diffensembler_sr", server=SERVER, **parameters):
    """Run a model on a loaded scalar volume.

    Args:
        volume_name: name of its node.
        model: one that the server lists.
        server: URL, without a slash at the end.
        **parameters: of the model (num_steps, seed, fusion, ...); the server tells wrong ones.

    Returns:
        The node of the result, on its own grid, in RAS millimetres like the volume.
    """
    node = slicer.util.getNode(volume_name)
    with tempfile.TemporaryDirectory(dir=slicer.app.temporaryPath) as folder:
        path = os.path.join(folder, "volume.nii.gz")
        if not slicer.util.saveNode(node, path):
            raise RuntimeError(f"Slicer could not write {volume_name} as NIfTI")
        slicer.util.showStatusMessage(f"{model}: waiting for the server")
        with open(path, "rb") as file:
            answer = requests.post(
                f"{server}/infer/{model}",
                params={"output": "image"},
                data={"params": json.dumps(parameters)},
                files={"file": ("volume.nii.gz", file)},
                timeout=3600,
            )
        if not answer.ok:
            raise RuntimeError(answer.json().get("detail", answer.text))
        result_path = os.path.join(folder, f"{volume_name}_{model}.nii.gz")
        with open(result_path, "wb") as file:
            file.write(answer.content)
        result = slicer.util.loadVolume(result_path, {"name": f"{volume_name} {model} (synthetic)"})
    slicer.util.setSliceViewerLayers(background=result, fit=True)
    return result
