"""For tests only, on PYTHONPATH: lets a torchvision built for CUDA be imported beside a CPU build of torch.

The package registry has torchvision built for CUDA alone. Beside a CPU build of torch its compiled operators
do not load, and its import then stops at the schemas of two of them. Nothing here calls those operators.
"""

import importlib.util

if importlib.util.find_spec("torch") is not None:
    import torch

    if not torch.cuda.is_available():
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
