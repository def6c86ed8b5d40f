"""The page of a run: what it says, what it survives, and what it does in a browser."""

import json
import logging
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
from browser import WIDTHS, column, opened
from PIL import Image
from run_folders import DATASET, HOSTILE, write_history, write_run_folder

from nrpn_d2.evaluation.mistakes import KINDS
from nrpn_d2.evaluation.page import series, tables, words
from nrpn_d2.evaluation.page.folder import MAX_POINTS, Evaluation, read_folder
from nrpn_d2.evaluation.page.images import Mistakes, compared_images
from nrpn_d2.evaluation.page.pages import write_run_page
from nrpn_d2.utils.page import Box


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Not to be changed."""
    folder = write_run_folder(tmp_path_factory.mktemp("page") / "run")
    (folder / "pictures").mkdir()
    Image.new("RGB", (30, 20), "red").save(folder / "pictures" / "10_a.jpg")
    write_run_page(str(folder))
    return folder


def test_the_first_screen_tells_the_most_important(run_folder, browser):
    with opened(browser, run_folder / "index.html") as page:
        box = page.locator("section").first.bounding_box()
        words = page.locator("body").inner_text().split("Results on")[0]
        assert box["y"] < 900
    assert "Finished: 60 iterations" in words and f"{DATASET} (4 images, 11 objects)" in words
    assert f"mAP 60 at IoU 0.5 on {DATASET}" in words and "best at cat (90), worst at <img" in words
    assert "score of at least 0.37: 80 % of them are right, and 75 % of the objects" in words
    # Of 5.75 mistakes per image, 2.5 are on background
    assert "detections on background" in words and "(43 %)" in words
    assert "detected as cat, 3 times" in words and "(50 % of its objects)" in words
    assert "more is lost by the detector's head" in words  # 95 - 75 against 100 - 95
    assert "still takes 50 % for objects" in words


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_in_a_browser(run_folder, browser, width):
    with opened(browser, run_folder / "index.html", width) as page:
        titles = page.locator("h2").all_inner_texts()
        assert [t.split(" ")[0] for t in titles] == (
            "Results Mistakes Classes Proposals Worst Training Pictures How".split()
        )
        charts = page.locator("figure h3").all_inner_texts()
        assert {"Losses", "Exchange", "Trust", "Evaluations", "At each score"} <= set(charts)
        assert page.locator(".plot .mark").count() == 5  # four warm-ups, one threshold
        classes = page.locator("section", has=page.locator("h2", has_text="Classes"))
        classes.locator("th button", has_text="AP50").click()
        table = "section:nth-of-type(3) table"
        assert column(page, 0, table) == ["cat", HOSTILE]
        classes.locator("th button", has_text="AP50").click()
        assert column(page, 0, table) == [HOSTILE, "cat"]
        page.locator("svg.picture").first.click()  # the worst image
        assert "3.png: 3 wrong, 1 missed" in page.locator("dialog[open] p").inner_text()
        page.keyboard.press("Escape")
        page.locator("dialog svg").wait_for(state="detached")
        assert page.locator("svg.picture").count() == 4 + 1
        assert page.locator("svg.picture rect.missed").count() == 4


def test_a_run_that_has_hardly_begun_has_a_page(tmp_path):
    for name in ("pictures", "edge_boxes"):
        (tmp_path / name).mkdir()
    (tmp_path / "pictures" / "vanished.jpg").symlink_to("nowhere")
    (tmp_path / "edge_boxes" / "results.json").write_text('{"dataset": "x", "metrics": {}}')
    write_run_page(str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert "No iteration is logged yet" in page and "no evaluation yet" in page
    write_history(tmp_path, 10)
    (tmp_path / "config.yaml").write_text("SOLVER: {MAX_ITER: 500}")
    write_run_page(str(tmp_path))
    assert "Unfinished: 10 of 500 iterations" in (tmp_path / "index.html").read_text()


HUGE = 10**400


@pytest.mark.parametrize(
    "file, content",
    [
        ("config.yaml", "a: [1"),
        ("config.yaml", "SOLVER: {MAX_ITER: many}"),
        ("run.json", "[]"),
        ("metrics.json", '[1]\n{"iteration": []}\n{"iteration": 3, "total_loss": NaN}'),
        ("metrics.json", f'{{"iteration": 1e999}}\n{{"iteration": 3, "total_loss": {HUGE}}}'),
        ("pictures/10_a.jpg", "broken"),
        ("inference/results.json", "{}"),
        (
            "inference/results.json",
            f'{{"dataset": "x", "metrics": {{"bbox": {{"AP50": {HUGE}}}}}}}',
        ),
        ("inference/mistakes.json", '{"images": [1]}'),
        ("inference/results.json", '{"dataset": "x", "metrics": {}, "curves": {"mistakes": {}}}'),
    ],
)
def test_a_broken_file_costs_only_its_part(tmp_path, caplog, file, content):
    folder = write_run_folder(tmp_path / "run")
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(content)
    write_run_page(str(folder))
    page = (folder / "index.html").read_text()
    assert "<h2>How it was run</h2>" in page and page.endswith("</html>\n")


@pytest.mark.parametrize("both", ["{{x: {0}, y: {0}}}", "[{0}, {0}]", "{{x: {0}, y: *itself}}"])
def test_aliases_of_yaml_cannot_fill_the_memory(tmp_path, both):
    lines = ["a0: &a0 {k: v}"]
    for i in range(1, 60):
        lines.append(f"a{i}: &a{i} {both.format(f'*a{i - 1}').replace('itself', f'a{i}')}")
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    config = read_folder(str(tmp_path)).config
    assert 0 < len(config) <= 5000 and len(str(config)) < 10**6


def test_a_long_history_is_thinned_and_a_resumed_one_in_order(tmp_path):
    rows = [{"iteration": i, "total_loss": float(i)} for i in [*range(900), *range(500, 1000)]]
    rows.insert(0, {"iteration": 999, "other/loss_of_another_kind": "x", "bbox/AP50": 3})
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, rows)))
    run = read_folder(str(tmp_path))
    x, y = run.history["total_loss"]
    assert len(x) <= MAX_POINTS and (np.diff(x) > 0).all() and run.last == 999
    np.testing.assert_allclose(x, y)


def test_datasets_have_parts_of_their_own(tmp_path):
    folder = write_run_folder(tmp_path / "run")
    earlier = folder / "inference" / "results.json"
    results = json.loads(earlier.read_text())
    os.utime(earlier, (1, 1))
    for name in ("a_test", "b_test"):
        (folder / "inference" / name).mkdir()
        path = folder / "inference" / name / "results.json"
        path.write_text(json.dumps({**results, "dataset": name}))
    assert [*read_folder(str(folder)).evaluations] == ["a_test", "b_test"]
    assert [*read_folder(str(folder / "inference")).evaluations] == ["a_test", "b_test"]
    one = read_folder(str(folder / "inference" / "a_test"))
    assert [*one.evaluations] == ["a_test"] and one.last > 0 and one.changes and one.name == "run"
    write_run_page(str(folder))
    page = (folder / "index.html").read_text()
    assert re.findall(r"<h2>Results on (\w+)</h2>", page) == ["a_test", "b_test"]
    earlier.touch()  # evaluated with one test set again
    assert [*read_folder(str(folder)).evaluations] == [DATASET]


def test_boxes_that_are_not_drawn_are_said_to_be_missing():
    mistakes = Mistakes("", 110, 60, [Box((0, 0, 1, 1))] * 170)
    assert "the first 100 of 170 boxes" in mistakes.figure("a.png")


def test_precision_is_that_of_the_classes_worst_in_all_runs():
    def run(precisions):
        curves = {str(n): [x] * 3 for n, x in enumerate(precisions)}
        evaluation = Evaluation({}, {"precision_recall": {"bbox": curves}}, {})
        return SimpleNamespace(evaluations={"d": evaluation})

    rising = np.arange(8) / 10
    groups = {"A": [run(rising), run(rising[:7])], "B": [run(rising[::-1] / 2)]}
    read = series.precision_by_recall("d", groups)
    curves_of = series.of_evaluation("d", "precision_recall", read)
    charts = series.charts("t", groups, curves_of, "x")
    drawn = {re.search("<h3>t: (.)", x)[1]: re.findall(r"</i>([^<]+)", x) for x in charts}
    # Class 7 is not in all runs of A, whose mean would be that of the others
    assert drawn == dict.fromkeys("01234", ["A (2)", "B"]) | {"7": ["B"]}


def evaluated(metrics, curves=()):
    evaluation = Evaluation(metrics, dict(curves), {})
    return SimpleNamespace(name="r", evaluations={"d": evaluation}, history={})


NAN = float("nan")
PERFECT = {"threshold": 0.5, "precision": 100.0, "recall": 100.0, "F1": 100.0}
ALL_KINDS = dict.fromkeys(KINDS, 1.0) | {"missed": 0.0}


@pytest.mark.parametrize(
    "metrics, said, not_said",
    [
        (  # of no object
            {
                "bbox": {"AP50": NAN, "AP50-a": NAN},
                "mistakes": dict.fromkeys(PERFECT, NAN) | ALL_KINDS,
                "box_proposals": {"R50": NAN},
            },
            "The detector reaches mAP n/a at IoU 0.5 on d.",
            ("nan", "Threshold", "threshold"),
        ),
        (
            {
                "bbox": {"AP50": 100.0, "AP50-a": 100.0, "AP50-b": 100.0},
                "mistakes": {**PERFECT, **ALL_KINDS, "recall-a": 100.0, "recall-b": 100.0},
                "box_proposals": {"R50": 100.0},
            },
            "the detector keeps 100 % at the threshold.",
            ("often missed", "more is lost"),
        ),
        (
            {"box_proposals": {"AR": 50.0}, "mistakes": PERFECT | ALL_KINDS},
            "100 % of them, not counting repetitions, are right",
            ("detections with",),
        ),
    ],
)
def test_words_of_what_is_known_alone(metrics, said, not_said):
    run = evaluated(metrics)
    text = "".join([*words.run_words(run, "d"), words.run_tiles(run, "d")])
    assert said in text and not any(x in text for x in not_said)


def test_tables_of_proposals():
    curves = {"mistakes": {"objects": {"object": 7}}}
    metrics = {"box_proposals": {"AR-a": 40.0, "AR": 30.0}, "mistakes": ALL_KINDS}
    runs = [evaluated(metrics, curves), evaluated(metrics)]
    alone, both = {"A": runs[:1]}, {"A": runs[:1], "B": runs[1:]}
    for groups in (alone, both):
        table = tables.classes_table("d", groups)
        assert ">a</td>" in table and ">40</td>" in table
        assert "duplicate" not in tables.kinds_table("d", groups)
    detector = evaluated({"bbox": {"AP50-a": 60.0}})
    table = tables.classes_table("d", both | {"D": [detector]})
    assert "AP50" in table and ">60</td>" in table


def test_numbers_of_a_table_are_written_out():
    rows = {("x",): {"A": [3.0, 30.0], "B": [1234.0, 1250.0]}}
    table = tables.compared(["m"], rows, {"A": "12", "B": "12"})
    assert "16.5 ± 172" in table and ">+1226<" in table


def test_all_that_is_best_is_named():
    runs = {
        n: [evaluated({"bbox": {"AP50": x}})] for n, x in {"A": 60.0, "B": 50, "C": 60.0}.items()
    }
    (tiles,) = words.comparison_words("d", runs)
    assert "best: A, C; B 50" in tiles


def test_losses_of_several_test_sets():
    history = dict.fromkeys(["total_loss", "loss_rpn_cls", "validation/a/rpn_cls"], ([1], [2]))
    history["validation/total_loss"] = [1], [2]
    drawn = [*series.losses(SimpleNamespace(history=history))]
    assert drawn == ["total", "rpn_cls", "rpn_cls on a"]


@pytest.mark.parametrize(
    "counts, words", [([1, 1], ""), ([1, 2], "which the runs"), (range(5), "4 of 5")]
)
def test_images_on_which_runs_differ(counts, words):
    def run(count):
        images = [{"file_name": "x", "objects": [], "detections": [[0, 0, 1, 1, 0, 1, 0]] * count}]
        mistakes = {"kinds": ["class"], "classes": ["a"], "images": images}
        return SimpleNamespace(name=f"r{count}", evaluations={"d": Evaluation({}, {}, mistakes)})

    section = compared_images("d", {n: [run(count)] for n, count in enumerate(counts)})
    assert bool(section) == bool(words) and words in section


def test_missing_images_are_said_to_be_missing(tmp_path, caplog):
    folder = write_run_folder(tmp_path / "run")
    (folder / HOSTILE / "3.png").unlink()
    with caplog.at_level(logging.WARNING):
        write_run_page(str(folder))
    assert "(unreadable)" in (folder / "index.html").read_text()
