"""tools/predict.py: what it writes of images and videos, and what it says of bad ones."""

import csv
import json
from collections import Counter

import cv2
import numpy as np
import predict
import pytest
from detectron2.modeling import build_model
from PIL import Image
from small_detectors import detector_cfg, trained

from nrpn_d2.checkpoint.trained_model import load_model
from nrpn_d2.deploy.predictor import Predictor
from nrpn_d2.engine.defaults import build_cfg

NAMES = ["red", "white", "plate/let"]


@pytest.fixture(scope="module", params=["GeneralizedRCNN", "ProposalNetwork"])
def both(request, tmp_path_factory):
    """The command line's words for a detector, and for a proposal network."""
    return model(tmp_path_factory, MODEL__META_ARCHITECTURE=request.param)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return model(tmp_path_factory)


def model(tmp_path_factory, **overrides):
    cfg = detector_cfg("vgg", TEST__DETECTIONS_PER_IMAGE=7, **overrides)
    cfg.DATASETS.VOC_CLASSES = NAMES
    return trained(cfg, tmp_path_factory.mktemp("model"))


def noise(size=(60, 80, 3)):
    return np.random.default_rng(0).integers(0, 256, size, np.uint8)


@pytest.fixture
def images(tmp_path):
    """Images of 80 x 60 pixels, one of them in a folder below, and something else."""
    folder = tmp_path / "images"
    (folder / "below [1]").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "below [1]/a.v2.bmp"):
        Image.fromarray(noise()).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def run(model, source, output, *flags):
    """The exit code, or the message that is one."""
    config, weights = model
    words = [*config, "--input", source, "--output", output, *flags, *weights]
    try:
        predict.main(predict.parse_args([*map(str, words)]))
    except SystemExit as e:
        return e.code
    return 0


def results(output):
    return json.loads((output / "results.json").read_text())


def ids(output):
    return {r["image_id"] for r in results(output)}


def test_folder(both, images, tmp_path, capsys):
    cfg = build_cfg(both[0][1], both[1])
    proposals = cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork"
    out = tmp_path / "out"
    assert run(both, images, out, *["--proposals"] * proposals) == 0
    printed = capsys.readouterr().out
    sure = Counter(r["image_id"] for r in results(out) if proposals or r["score"] >= 0.5)
    drawn = sum(min(count, 10) for count in sure.values())
    assert f"boxes in 3 images, {drawn} of them drawn" in printed
    assert "images per second" in printed
    assert ids(out) == {"a.jpg", "b.png", "below [1]/a.v2.bmp"}
    for name in ("a.jpg", "b.png", "below [1]/a.v2.bmp.png"):
        assert max(Image.open(out / name).size) >= 800  # readable
    # the same as the model's own, as x, y, width and height
    predictor = Predictor(cfg, load_model(cfg))
    image = np.array(Image.open(images / "b.png"))[:, :, ::-1]  # the model's format is BGR
    if proposals:
        found = predictor.propose_batch([predictor.inputs(image)])[0]
        boxes, scores = found.proposal_boxes.tensor, found.objectness_logits.sigmoid()
        names = ["proposal"] * len(found)
    else:
        found = predictor.detect_batch([predictor.inputs(image)])[0]
        boxes, scores = found.pred_boxes.tensor, found.scores
        names = [NAMES[c] for c in found.pred_classes]
    of_b = [r for r in results(out) if r["image_id"] == "b.png"]
    assert len(of_b) == len(found) > 5
    xywh = np.array([r["bbox"] for r in of_b])
    assert np.allclose(xywh[:, :2] + xywh[:, 2:], boxes[:, 2:], atol=1e-4)
    assert np.allclose(xywh[:, :2], boxes[:, :2], atol=1e-4)
    assert np.allclose([r["score"] for r in of_b], scores)
    assert [r["category_name"] for r in of_b] == names
    with open(out / "results.csv", newline="") as f:
        rows = [row for row in csv.DictReader(f) if row["image"] == "b.png"]
    assert [row["class"] for row in rows] == names
    assert np.allclose([float(row["width"]) for row in rows], xywh[:, 2], atol=0.01)


def test_bad_images_stop_nothing(detector, images, tmp_path, capsys):
    whole = (images / "a.jpg").read_bytes()
    (images / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "no.png").write_text("no image")
    (images / "empty.png").write_bytes(b"")
    (images / "no.mp4").write_text("no video")
    Image.fromarray(noise((2, 3000, 3))).save(images / "a_thin.png")
    Image.fromarray(noise((60, 80)).astype(np.uint16) * 256).save(images / "bits.png")
    Image.new("L", (20000, 20000)).save(images / "huge.png")
    Image.fromarray(noise()).save(images / "tag.tif")
    tiff = bytearray((images / "tag.tif").read_bytes())
    tiff[tiff.find(b"\x16\x01") + 2] = 5  # rows of a strip: a fraction
    (images / "tag.tif").write_bytes(tiff)
    code = run(detector, images, tmp_path / "out")
    assert code.startswith("8 of 11 files could not be used:")
    reasons = {"a_thin": "too thin", "bits": "more than 8 bits", "huge": "exceeds limit"}
    for name in ("half", "no", "empty", "a_thin", "bits", "huge"):
        assert f"{name}.png" in code or f"{name}.jpg" in code
        assert reasons.get(name, "cannot be read") in code
    assert ids(tmp_path / "out") == {"a.jpg", "b.png", "below [1]/a.v2.bmp"}


def test_kinds_of_images(detector, tmp_path):
    """One picture in all modes, and turned by EXIF, gives the same boxes."""
    folder, picture = tmp_path / "images", Image.fromarray(noise()).quantize(64)
    folder.mkdir()
    picture.save(folder / "palette.png")
    picture.convert("RGB").save(folder / "rgb.png")
    picture.convert("RGBA").save(folder / "alpha.png")
    for name in ("rgb.bmp", "rgb.tif"):
        picture.convert("RGB").save(folder / name)
    turned, exif = picture.convert("RGB").transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[274] = 6  # turn by 270 degrees
    turned.save(folder / "exif.png", exif=exif)
    picture.convert("CMYK").save(folder / "cmyk.jpg", quality=100)
    picture.convert("L").save(folder / "gray.png")
    assert run(detector, folder, tmp_path / "out") == 0
    rows = {}
    for r in results(tmp_path / "out"):
        rows.setdefault(r["image_id"], []).append((r["category_id"], *r["bbox"], r["score"]))
    assert len(rows) == 8
    for name in ("palette.png", "alpha.png", "rgb.bmp", "rgb.tif", "exif.png"):
        assert np.allclose(rows[name], rows["rgb.png"], atol=1e-3), name


def test_names_that_are_alike_keep_their_pictures_apart(detector, images, tmp_path):
    names = ["dup", "dup.bmp", "dup.bmp.png", "dup.bmp.png.png", "dup.png"]
    for value, name in enumerate(names):
        Image.new("RGB", (80, 60), (50 * value,) * 3).save(images / name, "PNG")
    run(detector, images / "dup*", tmp_path / "out", "--min-score", 1.1)
    pictures = [p for p in (tmp_path / "out").iterdir() if p.suffix not in (".json", ".csv")]
    assert {np.array(Image.open(p))[300, 400, 0] // 50 for p in pictures} == set(range(5))


def test_batches_change_nothing(detector, images, tmp_path):
    Image.fromarray(noise((90, 70, 3))).save(images / "c.png")
    run(detector, images, tmp_path / "one")
    run(detector, images, tmp_path / "all", "--batch", 3)
    one, both = results(tmp_path / "one"), results(tmp_path / "all")
    assert [r["image_id"] for r in one] == [r["image_id"] for r in both]
    assert np.allclose([r["bbox"] for r in one], [r["bbox"] for r in both], atol=1e-3)


def test_results_survive_an_error(detector, images, tmp_path, monkeypatch):
    detect, calls = Predictor.detect_batch, []

    def second_fails(self, inputs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return detect(self, inputs)

    monkeypatch.setattr(Predictor, "detect_batch", second_fails)
    with pytest.raises(KeyboardInterrupt):
        run(detector, images, tmp_path / "out")
    assert ids(tmp_path / "out") == {"a.jpg"}


def difference(output, name, image):
    """The share of an image's pixels that the picture shows otherwise, away from its margin."""
    picture = Image.open(output / name)
    left, top = (picture.width - 800) // 2, picture.height - 600 - (picture.width - 800) // 2
    inside = picture.crop((left, top, left + 800, top + 600)).resize((80, 60))
    return (
        np.abs(np.array(inside).astype(int) - np.array(Image.open(image))).max(axis=2) > 60
    ).mean()


def test_top_where_nothing_passes(detector, images, tmp_path, capsys):
    shown = {}
    for top in (0, 2):
        out = tmp_path / str(top)
        run(detector, images / "b.png", out, "--min-score", 1.1, "--top", top, "--crops")
        shown[top] = difference(out, "b.png", images / "b.png"), [*out.glob("b.png.crops/*")]
    assert shown[0][0] < shown[2][0] and not shown[0][1] and len(shown[2][1]) == 2
    printed = capsys.readouterr().out
    assert "No score reaches --min-score 1.1 in 1 images" in printed
    assert "--top 3 draws" in printed and "best 2 are drawn" in printed


def test_crops(detector, images, tmp_path):
    out = tmp_path / "out"
    run(detector, images / "b.png", out, "--crops", "--min-score", 0, "--top-k", 3)
    crops = sorted(out.glob("b.png.crops/*"))
    assert [c.name[:4] for c in crops] == ["000_", "001_", "002_"]
    first = results(out)[0]
    assert first["category_name"].replace("/", "_") in crops[0].name
    x, y, width, height = first["bbox"]
    assert np.allclose(Image.open(crops[0]).size, (width, height), atol=2)
    whole = np.array(Image.open(images / "b.png"))[int(y) :, int(x) :]
    crop = np.array(Image.open(crops[0]))
    assert np.array_equal(crop, whole[: crop.shape[0], : crop.shape[1]])


def test_video(detector, tmp_path):
    path, frame = str(tmp_path / "clip.avi"), noise((64, 80, 3))
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 12.5, (80, 64))
    for _ in range(5):
        writer.write(frame)
    writer.release()
    out = tmp_path / "out"
    assert run(detector, path, out, "--batch", 2, "--crops", "--min-score", 0) == 0
    assert ids(out) == {f"clip.avi/00000{n}" for n in range(5)}
    video = cv2.VideoCapture(str(out / "clip.avi.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 12.5
    frames = [video.read()[1] for _ in range(6)]
    assert frames[5] is None and frames[4].shape[1] >= 800
    assert len([*out.glob("clip.avi.mp4.crops/000004_*")]) == 7
    assert not [*out.glob("*half*")]


def test_mistakes(both, images, tmp_path):
    before = (images / "a.jpg").read_bytes()
    (tmp_path / "link").symlink_to(images)
    for output in (images, tmp_path, tmp_path / "link"):
        assert "would replace" in run(both, images, output, "--proposals")
    assert (images / "a.jpg").read_bytes() == before
    with pytest.raises(ValueError, match="no image and no video"):
        run(both, tmp_path / "*.nothing", tmp_path / "out")
    if build_cfg(both[0][1]).MODEL.META_ARCHITECTURE == "ProposalNetwork":
        assert "--proposals" in run(both, images, tmp_path / "out")


def test_a_model_without_an_rpn():
    keys = {"MODEL__LOAD_PROPOSALS": True}
    cfg = detector_cfg("vgg", MODEL__PROPOSAL_GENERATOR__NAME="PrecomputedProposals", **keys)
    with pytest.raises(ValueError, match="needs proposals from files .*model with an RPN"):
        Predictor(cfg, build_model(cfg))


def test_pictures_of_an_earlier_run_are_not_predicted_on(detector, images):
    for _ in range(2):
        run(detector, images, images / "out")
        assert ids(images / "out") == {"a.jpg", "b.png", "below [1]/a.v2.bmp"}
