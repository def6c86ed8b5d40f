"""The first screen: how good the networks are, at what, where they fail, which threshold to use."""

import math
from collections.abc import Iterator
from typing import Any

from ...utils.page import Html, element, markup, number, paragraph, tiles
from ..comparison import interval
from .folder import Evaluation, RunFolder
from .series import Groups, evaluations_of
from .tables import KIND_WORDS

_CONFIDENT = ("proposal_errors", "background>0.7")
# What runs are compared by: title, task, metric, and whether more is better
HEADLINES = (
    ("mAP, IoU 0.5", "bbox", "AP50", True),
    ("F1 of detections, in percent", "mistakes", "F1", True),
    ("recall of proposals, IoU 0.5", "box_proposals", "R50", True),
    ("AR of proposals", "box_proposals", "AR", True),
    ("confident background per image", *_CONFIDENT, False),
)


def state_of(run: RunFolder) -> str:
    """Return in words how far the run got."""
    if run.record.get("error"):
        return f"Stopped by an error: {run.record['error']}"
    total = run.config.get("SOLVER.MAX_ITER")
    if run.last < 0 or not isinstance(total, int):
        return "Evaluated, not trained" if run.evaluations else "No iteration is logged yet"
    if run.last + 1 >= total:
        return f"Finished: {total} iterations"
    return f"Unfinished: {run.last + 1} of {total} iterations"


def run_tiles(run: RunFolder, dataset: str) -> Html:
    e = run.evaluations[dataset]
    items = [
        (e.get("bbox", "AP50"), "mAP of the detector", "IoU 0.5, in percent"),
        (e.get("box_proposals", "R50"), "recall of the RPN", "IoU 0.5, in percent"),
        (e.get("box_proposals", "AR"), "average recall", "of the RPN, IoU 0.5 to 0.95"),
        (e.get(*_CONFIDENT), "confident background", "proposals per image, score > 0.7"),
        (e.get("mistakes", "threshold"), "score threshold to use", "where F1 is largest"),
    ]
    return tiles((number(v), label, words) for v, label, words in items if not math.isnan(v))


def run_words(run: RunFolder, dataset: str) -> Iterator[Html]:
    """Yield sentences about one evaluation."""
    e = run.evaluations[dataset]
    yield from _how_good(e, dataset)
    yield from _where_it_fails(e)
    yield from _networks(e, run)


def _how_good(e: Evaluation, dataset: str) -> Iterator[Html]:
    curve = e.curves.get("mistakes", {})
    data = dataset
    if "objects" in curve:
        data += f" ({curve['images']} images, {sum(curve['objects'].values())} objects)"
    threshold = e.get("mistakes", "threshold")
    precision, recall = e.get("mistakes", "precision"), e.get("mistakes", "recall")
    classes = _by_class(e, "bbox", "AP50")
    if e.is_detector:
        text = f"The detector reaches mAP {number(e.get('bbox', 'AP50'))} at IoU 0.5 on {data}"
        if len(classes) > 1:
            best, worst = max(classes, key=classes.get), min(classes, key=classes.get)
            text += f", best at {best} ({number(classes[best])}), "
            text += f"worst at {worst} ({number(classes[worst])})"
        yield _say("How good", f"{text}.")
    else:
        text = f"On {data}, the proposals have an average recall of "
        yield _say("How good", f"{text}{number(e.get('box_proposals', 'AR'))}.")
    if not math.isnan(threshold):
        detections = "detections" if e.is_detector else "proposals"
        counted = "" if e.is_detector else ", not counting repetitions,"
        yield _say(
            "Threshold",
            f"Keep {detections} with a score of at least ",
            element("b", f"{threshold:.2f}"),
            f": {precision:.0f} % of them{counted} are right, ",
            f"and {recall:.0f} % of the objects are found.",
        )


def _where_it_fails(e: Evaluation) -> Iterator[Html]:
    kinds = {kind: e.get("mistakes", kind) for kind in KIND_WORDS}
    if not e.is_detector:
        kinds.pop("duplicate")
    total = sum(kinds.values())
    if not total > 0:
        return
    largest = max(kinds, key=kinds.get)
    at = "" if math.isnan(e.get("mistakes", "threshold")) else " at this threshold"
    text = f"Of all mistakes{at} ({number(total)} per image), the most frequent are "
    text += f"{KIND_WORDS[largest]} ({100 * kinds[largest] / total:.0f} %)."
    curve = e.curves.get("mistakes", {})
    names = [*curve.get("objects", {})]
    mixed = [
        (count, names[true], names[predicted])
        for true, predicted, count in curve.get("confusions", ())
        if true != predicted and max(true, predicted) < len(names)
    ]
    if mixed:
        count, true, predicted = max(mixed)
        text += f" Most confused: {true} detected as {predicted}, {count} times."
    recalls = _by_class(e, "mistakes", "recall")
    worst = min(recalls, key=recalls.get, default="")
    if len(recalls) > 1 and recalls[worst] < 100:
        text += f" Most often missed: {worst} ({100 - recalls[worst]:.0f} % of its objects)."
    yield _say("Where it fails", text)


def _networks(e: Evaluation, run: RunFolder) -> Iterator[Html]:
    proposed, detected = e.get("box_proposals", "R50"), e.get("mistakes", "recall")
    text = ""
    if e.is_detector and not math.isnan(proposed - detected + e.get("mistakes", "threshold")):
        rpn, head = 100 - proposed, proposed - detected
        text = (
            f"The RPN proposes {number(proposed)} % of the objects, and the detector keeps "
            f"{number(detected)} % at the threshold"
        )
        loser = "detector's head" if head > rpn else "RPN"
        text += "." if head == rpn else f": more is lost by the {loser}."
    background = e.get(*_CONFIDENT)
    if not math.isnan(background):
        text += f" The RPN is confident (score > 0.7) of {number(background)} background proposals "
        text += "per image."
    believed = run.history.get("nrpn/believed")
    if believed:
        share = 100 * float(believed[1][-1])
        text += " Of the nRPN's hard negatives, the RPN still takes "
        text += f"{share:.0f} % for objects at the end of the training."
    if text:
        yield _say("Networks", text)


def _by_class(e: Evaluation, task: str, metric: str) -> dict[str, float]:
    return {
        key.removeprefix(f"{metric}-"): value
        for key, value in e.metrics.get(task, {}).items()
        if key.startswith(f"{metric}-") and not math.isnan(value)
    }


def _say(about: str, *content: Any) -> Html:
    return paragraph(element("b", f"{about}. "), markup(*content))


def comparison_words(dataset: str, groups: Groups) -> Iterator[Html]:
    """Yield tiles with the best group of each headline, and sentences with the thresholds."""
    evaluations, items = evaluations_of(dataset, groups), []
    for title, task, metric, more in HEADLINES:
        means = {}
        for name, of_group in evaluations.items():
            mean, _ = interval([e.get(task, metric) for e in of_group])
            if not math.isnan(mean):
                means[name] = mean
        if len(means) > 1:
            best = (max if more else min)(means.values())
            winners = ", ".join(name for name in means if means[name] == best)
            others = [f"{name} {number(mean)}" for name, mean in means.items() if mean != best]
            ranking = "; ".join(filter(None, [winners, ", ".join(others)]))
            items.append((number(best), title, f"best: {ranking}"))
    yield tiles(items)
    known = [
        f"{name} {', '.join(f'{x:.2f}' for x in thresholds)}"
        for name, of_group in evaluations.items()
        if (thresholds := [e.get("mistakes", "threshold") for e in of_group])
        and not any(map(math.isnan, thresholds))
    ]
    if known:
        yield _say("Score thresholds to use", f"{'; '.join(known)}.")
