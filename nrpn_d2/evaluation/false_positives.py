"""What an RPN is sure of and no object is at: to be drawn, and to be looked at."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from detectron2.data.detection_utils import read_image
from detectron2.structures import Boxes, pairwise_iou

from .figures import Panel
from .ground_truth import GroundTruth


@torch.no_grad()
def find_false_positives(
    model: Callable[[Sequence[dict[str, Any]]], Sequence[dict[str, Any]]],
    batches: Iterable[Sequence[dict[str, Any]]],
    ground_truth: GroundTruth,
    *,
    score: float,
    iou: float,
) -> list[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Find the proposals of score over ``score`` whose IoU with every object is below ``iou``.

    Args:
        model: batch of one image -> "proposals" in pixels of the image (:class:`BudgetedModel`).
        batches: the model's inputs; ``ground_truth`` has all their images.

    Returns:
        For each image its file's name, (K, 4) boxes, (K,) scores and the (G, 4) objects.
    """
    images = []
    for (inputs,) in batches:
        of_image = ground_truth.of_image(ground_truth.index_of(inputs["image_id"]))
        objects = torch.as_tensor(ground_truth.boxes[of_image])
        proposals = model([inputs])[0]["proposals"].to("cpu")
        scores = proposals.objectness_logits.sigmoid()
        overlaps = pairwise_iou(proposals.proposal_boxes, Boxes(objects))  # (proposals, G)
        wrong = (scores > score) & (overlaps < iou).all(dim=1)
        boxes = proposals.proposal_boxes.tensor[wrong]
        images.append((inputs["file_name"], boxes, scores[wrong], objects))
    return images


def panel(
    title: str, file_name: str, boxes: torch.Tensor, scores: torch.Tensor, objects: torch.Tensor
) -> Panel:
    """Return one image of :func:`find_false_positives` with its boxes and their scores."""
    labels = [f"{score:.2f}" for score in scores.tolist()]
    return Panel(title, read_image(file_name, "RGB"), boxes.numpy(), objects.numpy(), labels)
