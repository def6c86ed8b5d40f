import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from nrpn_d2.evaluation import figures as visualize
from nrpn_d2.evaluation.figures import (
    error_figure,
    false_positive_figure,
    precision_recall_figure,
    proposal_grid,
    recall_figure,
    save_figure,
)


def rectangles(axes, color):
    """Corners x0, y0, x1, y1 of the boxes drawn in a color, in order."""
    from matplotlib.colors import same_color

    drawn = [patch for patch in axes.patches if same_color(patch.get_edgecolor(), color)]
    return [[*p.get_xy(), p.get_x() + p.get_width(), p.get_y() + p.get_height()] for p in drawn]


def legend(axes):
    """Text -> color of the line or bar beside it."""
    legend = axes.get_legend()
    colors = [
        handle.get_color() if hasattr(handle, "get_color") else handle.get_facecolor()
        for handle in legend.legend_handles
    ]
    return dict(zip([text.get_text() for text in legend.get_texts()], colors))


def test_grid_draws_the_best_proposals_and_the_objects():
    images = [np.zeros((40, 60, 3), np.uint8), np.zeros((30, 20, 3), np.uint8)]
    gt_boxes = [np.array([[1, 2, 30, 20]]), np.empty((0, 4))]
    rpn = [np.array([[0, 0, 10, 10], [5, 5, 20, 25], [9, 9, 12, 12]]), np.array([[1, 1, 2, 2]])]
    nrpn = [np.empty((0, 4)), np.array([[3, 4, 5, 6]])]
    figure = proposal_grid(images, {"RPN": rpn, "nRPN": nrpn}, gt_boxes, top=2)
    axes = np.array(figure.axes).reshape(2, 3)
    assert [a.get_title() for a in axes[0]] == ["RPN", "nRPN", "ground truth"]
    assert rectangles(axes[0, 0], "limegreen") == [[0, 0, 10, 10], [5, 5, 20, 25]]
    assert rectangles(axes[0, 1], "limegreen") == rectangles(axes[0, 2], "limegreen") == []
    assert rectangles(axes[1, 1], "limegreen") == [[3, 4, 5, 6]]
    assert all(rectangles(a, "red") == [[1, 2, 30, 20]] for a in axes[0])
    assert all(rectangles(a, "red") == [] for a in axes[1])
    assert axes[0, 0].get_xlim() == (0, 60) and axes[0, 0].get_ylim() == (40, 0)


def test_grid_wants_boxes_of_every_image():
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="2 images, but boxes of 1 images in 'RPN'"):
        proposal_grid([image] * 2, {"RPN": [np.empty((0, 4))]}, [np.empty((0, 4))] * 2)


def curves(scale, budgets=(10, 100)):
    return {
        "iou": np.array([0.5, 0.7, 0.9]),
        "recall_vs_iou": {k: scale * np.array([0.9, 0.6, 0.1]) for k in budgets},
        "num_proposals": np.array([1, 10, 100]),
        "recall_vs_num": {0.5: scale * np.array([0.1, 0.5, 0.9]), "AR": np.full(3, scale)},
    }


def test_recall_figure_overlays_runs():
    figure = recall_figure({"RPN": curves(0.5), "RPN + nRPN": curves(1.0, budgets=(100, 300))})
    by_title = {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}
    # 10 and 300 proposals are in one run only.
    assert set(by_title) == {"IoU 0.5", "AR, IoU 0.5:0.95", "100 proposals per image"}
    first, second = by_title["IoU 0.5"].get_lines()
    assert legend(by_title["IoU 0.5"]) == {
        "RPN": first.get_color(),
        "RPN + nRPN": second.get_color(),
    }
    np.testing.assert_array_equal(second.get_xdata(), [1, 10, 100])
    np.testing.assert_allclose(first.get_ydata(), [0.05, 0.25, 0.45])
    assert by_title["IoU 0.5"].get_xscale() == "log"
    np.testing.assert_allclose(
        by_title["100 proposals per image"].get_lines()[1].get_ydata(), [0.9, 0.6, 0.1]
    )


def test_figures_are_saved_as_png_and_pdf(tmp_path):
    written = save_figure(recall_figure({"RPN": curves(0.5)}), str(tmp_path / "new" / "recall"))
    assert [name[len(str(tmp_path)) :] for name in written] == [
        "/new/recall.png",
        "/new/recall.pdf",
    ]
    assert np.asarray(Image.open(written[0])).std() > 0
    with open(written[1], "rb") as f:
        assert f.read(5) == b"%PDF-"


def test_error_figure_stacks_the_kinds():
    runs = {
        "RPN": {50: {"hit": 30, "background": 70}, 100: {"hit": 20, "background": 80}},
        "RPN + nRPN": {50: {"hit": 45, "background": 55}},
    }
    (axes,) = error_figure(runs).axes  # 100 proposals are in one run only
    bars = [(bar.get_y(), bar.get_height()) for bar in axes.patches]
    assert bars == [(0, 30), (0, 45), (30, 70), (45, 55)]
    hit, background = axes.patches[0].get_facecolor(), axes.patches[2].get_facecolor()
    assert legend(axes) == {"hit": hit, "background": background} and hit != background


def test_false_positive_figure_overlays_runs():
    runs = {name: {"per_image": [0.1, 1], "recall": [0.2, None]} for name in ("RPN", "nRPN")}
    (axes,) = false_positive_figure(runs).axes
    assert list(legend(axes)) == ["RPN", "nRPN"] and axes.get_xscale() == "log"
    np.testing.assert_array_equal(axes.get_lines()[1].get_ydata(), [0.2, np.nan])


def test_precision_recall_figure_has_a_panel_per_class():
    runs = {
        "RPN": {"bbox": {"ring": np.array([1, 0.5, 0]), "disc": np.zeros(3)}},
        "RPN + nRPN": {"bbox": {"ring": np.array([1, 1, 0.5])}},
    }
    (axes,) = precision_recall_figure(runs).axes
    assert axes.get_title() == "ring"
    first, second = axes.get_lines()
    np.testing.assert_array_equal(first.get_xdata(), [0, 0.5, 1])
    np.testing.assert_array_equal(second.get_ydata(), [1, 1, 0.5])


def test_panels_do_not_overlap():
    for count in (1, 3, 7, 20):
        curve = {f"class {n}": np.linspace(1, 0, 11) for n in range(count)}
        figure = precision_recall_figure({"RPN": {"bbox": curve}})
        FigureCanvasAgg(figure).draw()
        boxes = [axes.get_tightbbox() for axes in figure.axes if axes.get_visible()]
        assert len(boxes) == count
        width, height = figure.bbox.size
        for n, box in enumerate(boxes):
            assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height
            assert not any(box.overlaps(other) for other in boxes[:n])


def test_of_many_classes_the_first_are_drawn(monkeypatch):
    monkeypatch.setattr(visualize, "MAX_CLASSES", 6)
    curves = {f"class {n}": np.linspace(1, 0, 11) for n in range(8)}
    figure = precision_recall_figure({"RPN": {"bbox": curves}})
    FigureCanvasAgg(figure).draw()
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in drawn] == list(curves)[:6]
    (title,) = figure.texts
    assert title.get_text() == "6 of 8 classes; all are in results.json"
    assert title.get_window_extent().y0 > max(axes.get_tightbbox().y1 for axes in drawn)


@pytest.mark.parametrize("name", ["a$x_$", "50%$^$", "_run", r"$\frac$"])
def test_names_are_drawn_as_they_are(name, tmp_path):
    # The first two are no formulas: matplotlib raises an error when it draws them as such.
    image, boxes = np.zeros((4, 4, 3), np.uint8), np.empty((0, 4))
    figures = [
        proposal_grid([image], {name: [boxes]}, [boxes]),
        recall_figure({name: curves(0.5), "RPN": curves(1.0)}),
        error_figure({name: {50: {"hit": 30, "background": 70}}}),
        precision_recall_figure(dict.fromkeys([name, "RPN"], {"bbox": {name: np.zeros(3)}})),
    ]
    for n, figure in enumerate(figures):
        save_figure(figure, str(tmp_path / str(n)))
        texts = [text for text in figure.findobj(Text) if text.get_text() == name]
        assert texts and not any(text.get_parse_math() for text in texts)
    for figure in (figures[1], figures[3]):
        assert list(legend(figure.axes[0])) == [name, "RPN"]


def test_runs_with_nothing_in_common_get_a_note_in_place_of_a_panel():
    first, second = curves(0.5, budgets=(10, 100)), curves(1.0, budgets=(300,))
    figure = recall_figure({"RPN": first, "nRPN": second})
    assert notes(figure) == ["no number of proposals that all runs have"]
    second["recall_vs_num"] = {0.9: np.zeros(3)}
    assert notes(recall_figure({"RPN": first, "nRPN": second})) == [
        "no IoU threshold that all runs have",
        "no number of proposals that all runs have",
    ]
    errors = {"hit": 30, "background": 70}
    assert notes(error_figure({"RPN": {50: errors}, "nRPN": {100: errors}})) == [
        "no number of proposals that all runs have"
    ]
    runs = {"RPN": {"bbox": {"ring": np.zeros(3)}}, "nRPN": {"bbox": {"disc": np.zeros(3)}}}
    assert notes(precision_recall_figure(runs)) == ["no class that all runs have"]


def notes(figure):
    return [text.get_text() for axes in figure.axes if axes.get_visible() for text in axes.texts]
