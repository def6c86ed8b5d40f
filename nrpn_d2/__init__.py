"""nrpn_d2: region proposal networks that learn from their own mistakes, for Detectron2.

Importing it registers everything. The method is in modeling, and hard_negative_rpn is its hub; the
order of the rooms is in CONTRIBUTING.md.
"""

import warnings

with warnings.catch_warnings():  # Detectron2 uses torch.jit.script while it is imported
    warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
    try:
        import detectron2.engine
        import detectron2.evaluation  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "detectron2":
            raise
        raise ModuleNotFoundError(
            "nrpn_d2 needs Detectron2: pip install --no-build-isolation "
            "git+https://github.com/facebookresearch/detectron2.git",
            name="detectron2",
        ) from None

from .checkpoint import nrpn_weights  # noqa: F401  (for stock checkpointers, too)
from .config import add_nrpn_config
from .config_checks import check_nrpn_config
from .data import register_datasets
from .modeling import torchvision_backbone, vgg  # noqa: F401  (registers)
from .modeling.hard_negative_rpn import HardNegativeRPN
from .modeling.losses import OBJECTNESS_LOSS_REGISTRY
from .modeling.mining import MINER_REGISTRY
from .modeling.negative_rpn import NegativeRPN
from .modeling.samplers import NEGATIVE_SAMPLER_REGISTRY
from .utils.config_file import get_config_file

register_datasets()

__version__ = "0.1.0"
__all__ = [
    "HardNegativeRPN",
    "MINER_REGISTRY",
    "NegativeRPN",
    "OBJECTNESS_LOSS_REGISTRY",
    "NEGATIVE_SAMPLER_REGISTRY",
    "add_nrpn_config",
    "check_nrpn_config",
    "get_config_file",
]
