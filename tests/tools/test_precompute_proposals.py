import re

import numpy as np
import precompute_proposals
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper, build_detection_test_loader
from detectron2.data.build import load_proposals_into_dataset
from detectron2.modeling import build_model
from PIL import Image
from registered_dataset import registered
from small_models import small_cfg

from nrpn_d2.data.proposal_files import load_proposals


def precompute(folder, meta_architecture="GeneralizedRCNN"):
    """Run the tool on two images of different sizes; return model, config, records and file.

    The test size of the models, 96, leaves the first image as it is.
    """
    cfg = small_cfg(meta_architecture=meta_architecture, INPUT__MIN_SIZE_TEST=96)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    cfg.MODEL.WEIGHTS = str(folder / "model.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    (folder / "config.yaml").write_text(cfg.dump())
    path = str(folder / "rpn.pkl")
    with registered([[], []], ["a", "b", "c"]) as name:
        records = DatasetCatalog.get(name)
        for n, (width, height) in enumerate([(128, 96), (96, 48)]):
            pixels = np.random.default_rng(n).integers(0, 256, (height, width, 3), np.uint8)
            records[n].update(file_name=str(folder / f"{n}.png"), width=width, height=height)
            Image.fromarray(pixels).save(records[n]["file_name"])
        arguments = ["--config-file", str(folder / "config.yaml"), "--dataset", name]
        precompute_proposals.main(precompute_proposals.parse_args([*arguments, "--output", path]))
    return model, cfg, records, path


@torch.no_grad()
def outputs_of(model, cfg, records):
    mapper = DatasetMapper(cfg, is_train=False)
    loader = build_detection_test_loader(dataset=records, mapper=mapper)
    return [model(inputs)[0] for inputs in loader]


def test_the_proposals_are_the_models(tmp_path):
    model, cfg, records, path = precompute(tmp_path, "ProposalNetwork")
    proposals = load_proposals(path)
    assert list(proposals) == ["0", "1"]
    for of_image, output in zip(proposals.values(), outputs_of(model, cfg, records)):
        assert 0 < len(of_image.boxes) <= 50
        expected = output["proposals"]
        np.testing.assert_allclose(of_image.boxes, expected.proposal_boxes.tensor, atol=1e-4)
        np.testing.assert_allclose(of_image.logits, expected.objectness_logits, atol=1e-5)


def test_a_detector_on_the_file_detects_the_same(tmp_path):
    model, cfg, records, path = precompute(tmp_path)
    expected = outputs_of(model, cfg, records[:1])[0]["instances"]

    cfg.MODEL.LOAD_PROPOSALS = True
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    on_file = build_model(cfg).eval()
    on_file.load_state_dict(model.state_dict(), strict=False)
    loaded = load_proposals_into_dataset(records[:1], path)
    instances = outputs_of(on_file, cfg, loaded)[0]["instances"]
    assert len(expected) > 0
    np.testing.assert_allclose(instances.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-3)
    np.testing.assert_allclose(instances.scores, expected.scores, atol=1e-5)


def test_any_folder(tmp_path):
    """The same as for a dataset; what cannot be read is said at the end."""
    _, _, _, path = precompute(tmp_path)
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for n in range(2):
        (tmp_path / f"{n}.png").rename(tmp_path / "photos" / f"more/{n}.png")
    broken = tmp_path / "photos" / "broken.jpg"
    broken.write_bytes(b"nothing")
    (tmp_path / "photos" / "clip.mp4").write_bytes(b"")
    output = str(tmp_path / "folder.json")
    arguments = ["--config-file", str(tmp_path / "config.yaml"), "--output", output]
    arguments += ["--images", str(tmp_path / "photos"), "DATASETS.TEST", "()"]
    with pytest.raises(
        SystemExit, match=rf"2 of 4 images are not in it:\n{re.escape(str(broken))}: .*\n.*clip.mp4"
    ):
        precompute_proposals.main(precompute_proposals.parse_args(arguments))
    of_folder, of_dataset = load_proposals(output), load_proposals(path)
    assert list(of_folder) == ["more/0.png", "more/1.png"]
    for one, other in zip(of_folder.values(), of_dataset.values()):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)


def test_another_ending_is_refused_before_the_work():
    arguments = ["--config-file", "missing.yaml", "--output", "rpn.npz"]
    with pytest.raises(ValueError, match="rpn.npz: a proposal file ends in .pkl"):
        precompute_proposals.main(precompute_proposals.parse_args(arguments))
