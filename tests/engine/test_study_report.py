"""The results of a study: intervals by hand, tables and figures."""

import math

import pytest

from nrpn_d2.engine.study import Study
from nrpn_d2.engine.study_report import (
    by_seed,
    difference_table,
    interval,
    mean_table,
    paired_difference,
    rows_of,
    write_report,
)
from nrpn_d2.engine.study_results import TIME, Result, read_results


def test_interval_by_hand():
    # mean 3, standard deviation 1; t of 2 degrees of freedom 4.3027: 4.3027 / sqrt(3) = 2.4842
    found = interval([2.0, 3.0, 4.0])
    assert found[:3] == pytest.approx((3, 2.4842, 3), abs=1e-3)
    assert interval([5.0])[::2] == (5, 1) and math.isnan(interval([]).mean)


def test_paired_difference_by_hand():
    # Of the common seeds 1, 2, 3: differences 1, 2, 3; mean 2, standard deviation 1.
    # t = 2 / (1 / sqrt(3)) = 3.4641; two-sided p with 2 degrees of freedom 0.0742
    values, baseline = {1: 11.0, 2: 22.0, 3: 33.0, 4: 1.0}, {3: 30.0, 2: 20.0, 1: 10.0, 5: 9.0}
    found = paired_difference(values, baseline)
    assert found == pytest.approx((2, 2.4842, 3, 0.0742), abs=1e-3)
    assert math.isnan(paired_difference({1: 2.0}, {1: 1.0}).p)


def two_variants():
    results = []
    for seed, (rpn, ohem) in enumerate([(10, 11), (20, 22), (30, 33)], start=1):
        for variant, value, time in (("rpn", rpn, 1.0), ("ohem", ohem, 1.5)):
            for nms in ("0.5", "0.7"):
                bonus = 5 if nms == "0.5" else 0
                results.append(Result(variant, 40, seed, "data", nms, "AR@10", value + bonus))
            results.append(Result(variant, 40, seed, "data", "", TIME, time))
    return results


def test_tables():
    values = by_seed(two_variants(), "data")
    rows = rows_of(two_variants(), ["rpn", "ohem"])
    columns = ["AR@10", "AR@10 | 0.5", "AR@20"]
    means = mean_table(values, rows, columns).splitlines()
    assert means[0] == "| variant | seeds | AR@10 | AR@10 at NMS 0.5 | AR@20 |"
    assert means[2] == "| rpn | 3 | 20.0 ± 25 | 25.0 ± 25 | - |"  # 4.3027 * 10 / sqrt(3) = 24.8
    differences = difference_table(values, rows, columns, "rpn").splitlines()
    assert differences[2:] == [
        "| ohem | 3 | +2.00 [-0.48, +4.48], p 0.074 | +2.00 [-0.48, +4.48], p 0.074 | - | 1.50 |"
    ]


def test_report(tmp_path):
    study = Study(
        config="",
        output="",
        dataset="data",
        seeds=[1, 2, 3],
        variants={"rpn": {}, "ohem": {}},
        baseline="rpn",
        folder="",
        iterations=[40, 80],
    )
    tables = write_report(study, two_variants(), str(tmp_path / "report"))
    assert "| rpn, 40 |" not in tables and "| rpn | 3 |" in tables
    written = {path.name for path in (tmp_path / "report").iterdir()}
    figures = {"budgets.png", "nms.png", "calibration.png", "schedule.png"}
    assert written == {"tables.md", "results.csv", *figures}
    # Of two variants and three seeds what the columns and the times show: AR@10 at NMS 0.7
    assert len(read_results(str(tmp_path / "report" / "results.csv"))) == 12
    assert write_report(study, [], str(tmp_path / "report")) == "No run has ended yet.\n"
