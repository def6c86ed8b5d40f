"""A second judge for an audit: does a detection look like labelled objects, or like the rest?

The box head sees each detection again, mirrored and enlarged, and for each of these views a small
network learns to tell detections on labels from those off every label; each judges only images that
it did not learn from. Among the latter are the objects to be found, as "background". That shifts
what it says, but not its order, as long as labels are missing at random (Elkan and Noto, Learning
Classifiers from Only Positive and Unlabeled Data, KDD 2008).
"""

from typing import Any

import numpy as np
import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from ..utils.seeding import seeded

_VIEWS = ((1.0, False), (1.0, True), (1.4, False), (1.4, True), (2.0, False))  # scale, mirrored
_FOLDS, _EPOCHS, _BATCH, _HIDDEN = 5, 15, 128, 64
_FEWEST = 50  # of either kind, for each network to learn from


def can_look(model: nn.Module) -> bool:
    """Tell whether the model has one box head, as Faster and Mask R-CNN have, but no cascade."""
    return (
        isinstance(getattr(model, "roi_heads", None), nn.Module)
        and isinstance(getattr(model.roi_heads, "box_predictor", None), FastRCNNOutputLayers)
        and hasattr(model.roi_heads, "box_pooler")
    )


@torch.no_grad()
def look_again(
    model: nn.Module, inputs: dict[str, Any], boxes: torch.Tensor, classes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the box head says of K boxes, seen in V views.

    Args:
        inputs: of one image.
        boxes: (K, 4) in pixels of the original image.
        classes: (K,)

    Returns:
        (K,) scores of these classes, the mean over the views; (K, V, F) features, float16.
    """
    heads, scores, features = model.roi_heads, [], []
    height, width = inputs["image"].shape[1:]
    ratio = boxes.new_tensor([width / inputs["width"], height / inputs["height"]]).repeat(2)
    for scale, mirrored in _VIEWS:
        image, seen = inputs["image"].to(model.device).float(), boxes * ratio
        if mirrored:
            image = image.flip(2)
            seen = torch.stack([width - seen[:, 2], seen[:, 1], width - seen[:, 0], seen[:, 3]], 1)
        if scale != 1:
            image = interpolate(image[None], scale_factor=scale, mode="bilinear")[0]
        maps = model.backbone(model.preprocess_image([{"image": image}]).tensor)
        pooled = heads.box_pooler([maps[f] for f in heads.box_in_features], [Boxes(seen * scale)])
        of_boxes = heads.box_head(pooled).flatten(1)
        (probs,) = heads.box_predictor.predict_probs(heads.box_predictor(of_boxes), [boxes])
        scores.append(probs.gather(1, classes[:, None])[:, 0])
        features.append(of_boxes.clamp(-6e4, 6e4).half())  # float16 ends at 65,504
    return torch.stack(scores).mean(dim=0), torch.stack(features, dim=1)


def judge(features: np.ndarray, is_object: np.ndarray, images: np.ndarray) -> np.ndarray | None:
    """Return for each of K detections how much it looks like those with labels, from 0 to 1.

    Args:
        features: (K, V, F)
        is_object: (K,) 1 on a label, 0 off every label, -1 neither: judged, but not learned.
        images: (K,) numbers of the images.

    Returns:
        (K,); None where there is too little to learn from.
    """
    order = np.random.default_rng(0).permutation(images.max(initial=0) + 1)
    folds = torch.from_numpy(order[images] % _FOLDS)
    targets = torch.from_numpy(is_object).float()
    learned = [(folds != fold) & (targets >= 0) for fold in range(_FOLDS)]
    if min((targets[x] == kind).sum() for x in learned for kind in (0, 1)) < _FEWEST:
        return None
    judged = torch.zeros(len(targets))
    for view in range(features.shape[1]):
        x = torch.from_numpy(features[:, view]).float()
        x = (x - x.mean(dim=0)) / (x.std(dim=0) + 1e-3)
        for fold in range(_FOLDS):
            with seeded(0, view, fold):
                network = _fit(x[learned[fold]], targets[learned[fold]])
            with torch.no_grad():
                judged[folds == fold] += network(x[folds == fold])[:, 0].sigmoid()
    return (judged / features.shape[1]).double().numpy()


def _fit(x: torch.Tensor, targets: torch.Tensor) -> nn.Module:
    network = nn.Sequential(
        nn.Dropout(0.2),
        nn.Linear(x.shape[1], _HIDDEN),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(_HIDDEN, 1),
    )
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    for _ in range(_EPOCHS):
        for some in torch.randperm(len(x)).split(_BATCH):
            loss = binary_cross_entropy_with_logits(network(x[some])[:, 0], targets[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()
