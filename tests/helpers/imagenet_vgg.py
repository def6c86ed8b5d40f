"""Small files with the names of an ImageNet VGG-16."""

import torch

# small_cfg's VGG: a convolution, ReLU and pooling for each of four stages
FEATURES = {
    "features.0": "conv1_1",
    "features.3": "conv2_1",
    "features.6": "conv3_1",
    "features.9": "conv4_1",
}
CLASSIFIER = {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}
SHAPES = {
    "conv1_1": (8, 3, 3, 3),
    "conv2_1": (8, 8, 3, 3),
    "conv3_1": (16, 8, 3, 3),
    "conv4_1": (16, 16, 3, 3),
    "fc6": (32, 16 * 49),
    "fc7": (32, 32),
    "fc8": (10, 32),
}


def small_vgg(caffe=False):
    """Random weights of a torchvision VGG (or of a Caffe one) that fits small_cfg's model."""
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for name, layer in {**FEATURES, **CLASSIFIER}.items():
        name = layer if caffe else name
        weights[f"{name}.weight"] = torch.randn(SHAPES[layer], generator=generator)
        weights[f"{name}.bias"] = torch.randn(SHAPES[layer][0], generator=generator)
    return weights


def saved(weights, path):
    torch.save(weights, path)
    return str(path)
