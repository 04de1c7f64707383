"""The table of a report, as object, text and CSV."""

import pytest

from instdisc_core.evaluation import Report
from instdisc_core.evaluation.report import text_table

pytestmark = pytest.mark.framework_independent


def small_report():
    report = Report()
    report.add("kNN", "pixels", 1, k=5, temperature=0.1)
    report.add("1-NN", "embedding", 0.25)
    return report


def test_rows_are_found_by_measure_and_features():
    report = small_report()
    assert report.value("kNN", "pixels") == 1
    assert report.row("kNN", "pixels")["settings"] == {"k": 5, "temperature": 0.1}
    with pytest.raises(ValueError, match=r"'2-NN' of 'pixels'\. Expected one of 'kNN' of"):
        report.value("2-NN", "pixels")


def test_a_report_as_text_and_as_csv():
    report = small_report()
    assert str(report).splitlines() == [
        "measure  features   value  settings",
        "kNN      pixels     1.000  k=5, temperature=0.1",
        "1-NN     embedding  0.250",
    ]
    assert report.to_csv().splitlines() == [
        "measure,features,value,settings",
        'kNN,pixels,1.0,"k=5, temperature=0.1"',
        "1-NN,embedding,0.25,",
    ]
    assert text_table(("a",), []) == "a"
