"""The page of a run, and of several runs side by side."""

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from ...utils.charts import Mark
from ...utils.page import (
    Html,
    details,
    element,
    figure,
    grid,
    paragraph,
    picture,
    section,
    write_page,
)
from ..comparison import group_runs, run_names
from . import series, tables, words
from .folder import RunFolder, read_folder
from .images import compared_images, worst_images

logger = logging.getLogger(__name__)

PAGE = "index.html"
_PICTURE_SIDE = 900


def write_run_page(folder: str) -> None:
    """Write index.html into the folder of a run, of what is there."""
    run = read_folder(folder)
    write_page(os.path.join(folder, PAGE), f"Run {run.name}", [*run_content(run)])


def write_comparison_page(arguments: Sequence[str], output_dir: str) -> str:
    """Write index.html of the runs that ``compare_runs`` is given, of one alone its own page.

    Returns:
        The file.
    """
    groups = {
        group: [
            read_folder(path, f"{group}, {name}" if len(paths) > 1 else group)
            for path, name in zip(paths, run_names(paths))
        ]
        for group, paths in group_runs(arguments).items()
    }
    path = os.path.join(output_dir, PAGE)
    runs = [run for of_group in groups.values() for run in of_group]
    if len(runs) == 1:
        write_page(path, f"Run {runs[0].name}", [*run_content(runs[0])])
    else:
        write_page(path, f"Comparison: {', '.join(groups)}", [*comparison_content(groups)])
    return path


def run_content(run: RunFolder) -> Iterator[Html]:
    """Yield the page of one run, the most important first."""
    groups = {run.name: [run]}
    yield paragraph(words.state_of(run), class_="soft")
    for dataset in run.evaluations:
        yield _guarded(lambda d=dataset: [*words.run_words(run, d), words.run_tiles(run, d)])
    if not run.evaluations:
        yield paragraph("There is no evaluation yet: set TEST.EVAL_PERIOD, or see the curves.")
    for dataset in run.evaluations:
        yield from _results(dataset, groups)
        yield _guarded(lambda d=dataset: [worst_images(run, d)])
    yield from _training(groups)
    yield _guarded(lambda: _pictures(run))
    yield section("How it was run", _guarded(lambda: _how_it_was_run(run)))


def comparison_content(groups: series.Groups) -> Iterator[Html]:
    runs = [run for of_group in groups.values() for run in of_group]
    datasets = dict.fromkeys(dataset for run in runs for dataset in run.evaluations)
    for dataset in datasets:
        yield _guarded(lambda d=dataset: words.comparison_words(d, groups))
    for dataset in datasets:
        yield from _results(dataset, groups)
        yield _guarded(lambda d=dataset: [compared_images(d, groups)])
    yield from _training(groups)
    for run in runs:
        yield section(f"How {run.name} was run", _guarded(lambda r=run: _how_it_was_run(r)))


def _guarded(build: Callable[[], Iterable[Html]]) -> Html:
    """Return what ``build`` gives; a broken file costs one part of the page."""
    try:
        return Html("".join(build()))
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        logger.warning("A part of the page is left out: %r", error)
        return paragraph(f"This part could not be made: {error!r}", class_="soft")


def _training(groups: series.Groups) -> Iterator[Html]:
    def build() -> Iterator[Html]:
        marks = series.warm_up(groups)
        for title, curves_of, ylabel, y_range in (
            ("Losses", series.losses, "", None),
            ("Exchange", series.exchange_counts, "per image", None),
            ("Trust", series.exchange_scores, "score or share", (0, 1)),
            ("Evaluations", series.progress, "percent", None),
        ):
            options = {"marks": marks, "y_range": y_range}
            yield from series.charts(title, groups, curves_of, "iteration", ylabel, **options)

    charts = _guarded(lambda: [grid(*build(), large=True)])
    if "<svg" in charts:
        yield section("Training", charts)


def _results(dataset: str, groups: series.Groups) -> Iterator[Html]:
    yield section(
        f"Results on {dataset}", _guarded(lambda: [tables.results_table(dataset, groups)])
    )
    yield _guarded(lambda: [grid(*_result_charts(dataset, groups), large=True)])
    yield section("Mistakes", _guarded(lambda: _mistakes(dataset, groups)))
    yield section("Classes", _guarded(lambda: [tables.classes_table(dataset, groups)]))
    yield section("Proposals", _guarded(lambda: [tables.proposals_table(dataset, groups)]))


def _result_charts(dataset: str, groups: series.Groups) -> Iterator[Html]:
    def of(kind: str, read: Callable, title: str, *labels: str, **options) -> list[Html]:
        curves_of = series.of_evaluation(dataset, kind, read)
        return series.charts(title, groups, curves_of, *labels, y_range=(0, 1), **options)

    evaluations = series.evaluations_of(dataset, groups)
    threshold = [
        Mark("suggested threshold", e.get("mistakes", "threshold"))
        for e in (next(iter(evaluations.values())) if len(groups) == 1 else ())
        if not math.isnan(e.get("mistakes", "threshold"))
    ][:1]
    yield from of("mistakes", series.score_rates, "At each score", "score", marks=threshold)
    kind, title = "false_positives", "Recall against background"
    labels = "background proposals per image", "recall"
    yield from of(kind, series.recall_by_false_positives, title, *labels, log_x=True)
    labels = "proposals per image", "recall"
    yield from of("recall", series.recall_by_number, "Recall", *labels, log_x=True)
    yield from of("recall", series.recall_by_iou, "Recall by IoU", "IoU", "recall")
    kind, title = "precision_recall", "Precision, IoU 0.5"
    worst = series.precision_by_recall(dataset, groups)
    yield from of(kind, worst, title, "recall", "precision")


def _mistakes(dataset: str, groups: series.Groups) -> Iterator[Html]:
    yield paragraph("Each run at its own suggested threshold; IoU 0.5.", class_="soft")
    yield tables.kinds_table(dataset, groups)
    for first, *_ in groups.values():
        evaluation = first.evaluations.get(dataset)
        if evaluation and "mistakes" in evaluation.curves:
            matrix = tables.confusions(evaluation)
            yield details(f"Confusions of {first.name}", matrix) if len(groups) > 1 else matrix


def _pictures(run: RunFolder) -> Iterator[Html]:
    if not run.pictures:
        return
    shown = []
    for path in run.pictures:
        with Image.open(path, formats=("JPEG",)) as image:
            pixels = picture(np.asarray(image.convert("RGB")), alt=path, side=_PICTURE_SIDE)
        shown.append(figure(pixels, os.path.relpath(path, run.path)))
    title = "Pictures drawn during the training, the latest first"
    yield section(title, element("div", *shown, class_="grid pairs"))


def _how_it_was_run(run: RunFolder) -> Iterator[Html]:
    record = run.record
    versions = record.get("versions") or {}
    facts = [
        ("command", record.get("command")),
        ("folder", os.path.abspath(run.path)),
        ("trained on", ", ".join(run.config.get("DATASETS.TRAIN") or ())),
        ("training images", record.get("training_images")),
        ("tested on", ", ".join(run.config.get("DATASETS.TEST") or ())),
        ("weights at the start", run.config.get("MODEL.WEIGHTS")),
        ("started", record.get("started")),
        ("ended", record.get("ended")),
        ("error", record.get("error")),
        ("device", record.get("device")),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("commit", record.get("commit")),
    ]
    yield tables.facts_table(facts)
    yield tables.changes_table(run.changes)
