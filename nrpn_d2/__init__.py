"""nrpn_d2: region proposal networks that learn from their own mistakes, for Detectron2.

Importing it registers everything. In data-flow order:

    config             add_nrpn_config: every key
    data               VOC-layout folders and the embedded dataset `shapes` -> dataset dicts
    vgg                image -> features: build_vgg_backbone; VGGBoxHead
    torchvision_backbone  the same by torchvision's networks: build_torchvision_backbone, with FPN
    hard_negative_rpn  features -> proposals and losses: HardNegativeRPN, the hub of the next six
    labels             anchors, ground truth -> labels, IoUs
    negative_rpn       image -> the nRPN's logits
    mining             logits -> false positives; the nRPN's logits -> hard negatives
    samplers           labels -> sampled labels: Random, OHEM, IoUBalanced, NRPN, All
    proposal_ious      regressed boxes -> their IoUs, for losses and mining
    losses             logits, labels, IoUs -> losses: BCE, Overlap, IoUTarget, Focal, QualityFocal
    events             the exchange of the two networks -> scalars, log
    checkpoint         pre-trained weights into both networks
    weights            ImageNet weights: torchvision://NAME, torchvision://vgg16_caffe, VGG files
    torchvision_weights  torchvision's files into its networks
    pixels             the order, mean and deviation of pixels that weights were trained with
    checkpointer       NRPNCheckpointer, of safe_load (what is read) and saving (what is written)
    trainer            Trainer: Detectron2's, resumed exactly; of data.loader, seeding,
                       finite_losses, replay; started by launch
    evaluation         proposals and detections -> recall and AP
    study              variants of a config and several seeds -> results; study_report: tables
    visualize          pictures of proposals; curves
"""
from . import torchvision_backbone, vgg, weights  # noqa: F401  (registers)
from .config import add_nrpn_config, check_nrpn_config
from .data import register_datasets
from .hard_negative_rpn import HardNegativeRPN
from .losses import OBJECTNESS_LOSS_REGISTRY
from .negative_rpn import NegativeRPN
from .samplers import NEGATIVE_SAMPLER_REGISTRY

register_datasets()

__version__ = "0.1.0"
__all__ = [
    "HardNegativeRPN",
    "NegativeRPN",
    "OBJECTNESS_LOSS_REGISTRY",
    "NEGATIVE_SAMPLER_REGISTRY",
    "add_nrpn_config",
    "check_nrpn_config",
]
