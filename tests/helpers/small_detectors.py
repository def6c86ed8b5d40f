"""Detectors as a training leaves them: confident, in a folder with their config."""

import torch
from detectron2.modeling import build_model
from small_models import small_cfg

from nrpn_d2.checkpoint.checkpointer import NRPNCheckpointer
from nrpn_d2.checkpoint.pixels import Pixels

SPREAD = {
    "rpn_head.objectness_logits": 2,
    "rpn_head.anchor_deltas": 0.3,
    "box_predictor.cls_score": 2,
    "box_predictor.bbox_pred": 1,
}
OTHER_HEADS = {
    "cascade": {
        "MODEL__ROI_HEADS__NAME": "CascadeROIHeads",
        "MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True,
    },
    "mask": {
        "MODEL__MASK_ON": True,
        "MODEL__ROI_MASK_HEAD__NAME": "MaskRCNNConvUpsampleHead",
        "MODEL__ROI_MASK_HEAD__NUM_CONV": 1,
        "MODEL__ROI_MASK_HEAD__CONV_DIM": 8,
    },
    "keypoint": {
        "MODEL__KEYPOINT_ON": True,
        "MODEL__ROI_KEYPOINT_HEAD__CONV_DIMS": [8],
        "MODEL__ROI_KEYPOINT_HEAD__NUM_KEYPOINTS": 3,
        "MODEL__ROI_HEADS__NUM_CLASSES": 1,
    },
}


def noise(*sizes):
    """Images (3, H, W) of 0 to 255."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, *size), generator=generator).float() for size in sizes]


def detector_cfg(kind="fpn", **overrides):
    """A config for images of 96 pixels: "vgg", "fpn", or a key of ``OTHER_HEADS``."""
    overrides = {
        "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0,
        "INPUT__MIN_SIZE_TEST": 96,
        "INPUT__MAX_SIZE_TEST": 160,
        **OTHER_HEADS.get(kind, {}),
        **overrides,
    }
    return small_cfg("vgg" if kind == "vgg" else "fpn", **overrides)


@torch.no_grad()
def confident(cfg):
    """Give each output layer a spread, so that rounding cannot change which boxes are kept."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    (image,) = noise((96, 128))
    for part, spread in SPREAD.items():
        for layer in [
            m for name, m in model.named_modules() if part in name and not [*m.children()]
        ]:
            outputs = []
            hook = layer.register_forward_hook(lambda m, x, out, seen=outputs: seen.append(out))
            model([{"image": image}])
            hook.remove()
            layer.weight *= spread / torch.cat([x.flatten() for x in outputs]).std()
    return model


def trained(cfg, folder):
    """A config file and a checkpoint: their paths as words of a command line."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpointer = NRPNCheckpointer(confident(cfg), str(folder), pixels=Pixels.of_config(cfg))
    checkpointer.save("model_final")
    (folder / "config.yaml").write_text(cfg.dump())
    config = ["--config-file", str(folder / "config.yaml")]
    return config, ["MODEL.WEIGHTS", str(folder / "model_final.pth")]
