import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from nrpn_d2.evaluation import figures
from nrpn_d2.evaluation.figures import (
    error_figure,
    false_positive_figure,
    precision_recall_figure,
    recall_figure,
    save_figure,
)
from nrpn_d2.evaluation.panels import Kind, Layer, Panel, picture_grid

ONE_BOX = np.array([[1, 1, 2, 2]])


def legend(figure):
    """Return text -> color of the line or bar beside it."""
    (legend,) = figure.legends
    colors = [
        handle.get_color() if hasattr(handle, "get_color") else handle.get_facecolor()
        for handle in legend.legend_handles
    ]
    return dict(zip([text.get_text() for text in legend.get_texts()], colors))


def curves(scale, budgets=(10, 100)):
    return {
        "iou": np.array([0.5, 0.7, 0.9]),
        "recall_vs_iou": {k: scale * np.array([0.9, 0.6, 0.1]) for k in budgets},
        "num_proposals": np.array([1, 10, 100]),
        "recall_vs_num": {0.5: scale * np.array([0.1, 0.5, 0.9]), "AR": np.full(3, scale)},
    }


def test_recall_figure_overlays_runs():
    figure = recall_figure({"RPN": curves(0.5), "RPN + nRPN": curves(1.0, budgets=(100, 300))})
    by_title = {axes.get_title(): axes for axes in figure.axes}
    # 10 and 300 proposals are in one run only.
    assert set(by_title) == {"IoU 0.5", "AR, IoU 0.5:0.95", "100 proposals per image"}
    first, second = by_title["IoU 0.5"].get_lines()
    assert legend(figure) == {"RPN": first.get_color(), "RPN + nRPN": second.get_color()}
    np.testing.assert_array_equal(second.get_xdata(), [1, 10, 100])
    np.testing.assert_allclose(first.get_ydata(), [0.05, 0.25, 0.45])
    FigureCanvasAgg(figure).draw()
    ticks = [tick.get_text() for tick in by_title["IoU 0.5"].get_xticklabels()]
    assert {"1", "10", "100"} <= set(ticks)
    np.testing.assert_allclose(
        by_title["100 proposals per image"].get_lines()[1].get_ydata(), [0.9, 0.6, 0.1]
    )


def test_figures_are_saved_as_png_and_pdf(tmp_path):
    save_figure(recall_figure({"RPN": curves(0.5)}), str(tmp_path / "new" / "recall"))
    assert np.asarray(Image.open(tmp_path / "new" / "recall.png")).std() > 0
    assert (tmp_path / "new" / "recall.pdf").read_bytes().startswith(b"%PDF-")


def test_error_figure_stacks_the_kinds():
    runs = {
        "RPN": {50: {"hit": 30, "background": 70}, 100: {"hit": 20, "background": 80}},
        "RPN + nRPN": {50: {"hit": 45, "background": 55}},
    }
    figure = error_figure(runs)
    (axes,) = figure.axes  # 100 proposals are in one run only
    bars = [(bar.get_y(), bar.get_height()) for bar in axes.patches]
    assert bars == [(0, 30), (0, 45), (30, 70), (45, 55)]
    hit, background = axes.patches[0].get_facecolor(), axes.patches[2].get_facecolor()
    assert legend(figure) == {"hit": hit, "background": background} and hit != background


def test_false_positive_figure_overlays_runs():
    runs = {name: {"per_image": [0.1, 1], "recall": [0.2, None]} for name in ("RPN", "nRPN")}
    figure = false_positive_figure(runs)
    assert list(legend(figure)) == ["RPN", "nRPN"] and figure.axes[0].get_xscale() == "log"
    np.testing.assert_array_equal(figure.axes[0].get_lines()[1].get_ydata(), [0.2, np.nan])


def test_more_runs_than_styles_are_all_drawn():
    names = [f"run {n}" for n in range(len(figures.STYLES) + 1)]
    curve = {"per_image": [0.1, 1], "recall": [0.2, 0.5]}
    for figure in (
        recall_figure(dict.fromkeys(names, curves(1.0))),
        false_positive_figure(dict.fromkeys(names, curve)),
        precision_recall(1, len(names)),
    ):
        assert len(figure.axes[0].get_lines()) == len(names)


def test_recall_without_an_object_is_nothing_to_draw():
    curve = {"per_image": [0.1, 1], "recall": [None, None]}
    for figure in (recall_figure({"RPN": curves(np.nan)}), false_positive_figure({"RPN": curve})):
        FigureCanvasAgg(figure).draw()
        assert figure.axes[0].get_xscale() == "linear"


def test_precision_recall_figure_has_a_panel_per_class():
    runs = {
        "RPN": {"bbox": {"ring": np.array([1, 0.5, 0]), "disc": np.zeros(3)}},
        "RPN + nRPN": {"bbox": {"ring": np.array([1, 1, 0.5])}},
    }
    (axes,) = precision_recall_figure(runs).axes
    assert axes.get_title() == "ring: AP ≈ 50, 83"
    first, second = axes.get_lines()
    np.testing.assert_array_equal(first.get_xdata(), [0, 0.5, 1])
    np.testing.assert_array_equal(second.get_ydata(), [1, 1, 0.5])


def precision_recall(num_classes, num_runs=1):
    names = [f"class {n}" for n in range(num_classes)]
    runs = [f"run {n}" for n in range(num_runs)]
    curves = {"bbox": {name: np.linspace(1, 0, 11) for name in names}}
    return precision_recall_figure(dict.fromkeys(runs, curves))


@pytest.mark.parametrize("num_classes, num_runs", [(1, 1), (3, 8), (7, 2), (20, 12)])
def test_neither_panels_nor_the_legend_overlap(num_classes, num_runs):
    figure = precision_recall(num_classes, num_runs)
    FigureCanvasAgg(figure).draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert len(boxes) == num_classes
    boxes.append(figure.legends[0].get_window_extent())
    width, height = figure.bbox.size
    for n, box in enumerate(boxes):
        assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height
        assert not any(box.overlaps(other) for other in boxes[:n])


def test_of_many_classes_the_first_are_drawn(monkeypatch):
    monkeypatch.setattr(figures, "MAX_CLASSES", 6)
    figure = precision_recall(8)
    FigureCanvasAgg(figure).draw()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"class {n}: AP ≈ 50" for n in range(6)]
    (title,) = figure.texts
    assert title.get_text() == "6 of 8 classes; all are in results.json"
    assert title.get_window_extent().y0 > max(axes.get_tightbbox().y1 for axes in figure.axes)


@pytest.mark.parametrize("name", ["a$x_$", "50%$^$", "_run", r"$\frac$"])
def test_names_are_drawn_as_they_are(name, tmp_path):
    # The first two are no formulas: matplotlib raises an error when it draws them as such.
    panel = Panel(name, np.zeros((4, 4, 3), np.uint8), [Layer(Kind(name, "r"), ONE_BOX, [name])])
    precisions = dict.fromkeys([name, "RPN"], {"bbox": {name: np.zeros(3)}})
    drawn = [
        picture_grid([panel], 1),
        recall_figure({name: curves(0.5), "RPN": curves(1.0)}),
        error_figure({name: {50: {"hit": 30, "background": 70}}}),
        precision_recall_figure(precisions),
    ]
    for n, figure in enumerate(drawn):
        save_figure(figure, str(tmp_path / str(n)))
        texts = [text for text in figure.findobj(Text) if name in text.get_text()]
        assert texts and not any(text.get_parse_math() for text in texts)
    assert list(legend(drawn[0])) == [name]
    for figure in (drawn[1], drawn[3]):
        assert list(legend(figure)) == [name, "RPN"]


def test_runs_with_nothing_in_common_get_a_note_in_place_of_a_panel():
    def notes(draw, *runs):
        figure = draw(dict(zip(("RPN", "nRPN"), runs)))
        return [text.get_text() for axes in figure.axes for text in axes.texts]

    budgets = "no number of proposals that all runs have"
    first, second = curves(0.5, budgets=(10, 100)), curves(1.0, budgets=(300,))
    assert notes(recall_figure, first, second) == [budgets]
    second["recall_vs_num"] = {0.9: np.zeros(3)}
    thresholds = "no IoU threshold that all runs have"
    assert notes(recall_figure, first, second) == [thresholds, budgets]
    errors = {"hit": 30, "background": 70}
    assert notes(error_figure, {50: errors}, {100: errors}) == [budgets]
    classes = [{"bbox": {name: np.zeros(3)}} for name in ("ring", "disc")]
    assert notes(precision_recall_figure, *classes) == ["no class that all runs have"]
