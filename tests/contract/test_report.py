from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import jsonschema
import pytest

from fusionkit.contract.report import SCHEMA, Report, Result, Status


def result(status: Status, check: str = "gradcheck", reason: str = "", subject: str = "fusionkit/summation") -> Result:
    return Result(subject, "fusion", "fusionkit", "0.1", check, "dims=[4, 4]", status, reason, 0.25)


REPORT = Report(
    [
        result("passed"),
        result("failed", reason="a should be b; found c"),
        result("error", reason="x"),
        result("skipped", reason="no need\x00\x1b"),
        result("xfailed", reason="known"),
        result("xpassed", reason="passes", subject="mod:Cls"),
    ]
)


@pytest.mark.parametrize(
    ("status", "ok"),
    [("passed", True), ("skipped", True), ("xfailed", True), ("failed", False), ("error", False), ("xpassed", False)],
)
def test_ok(status: Status, ok: bool) -> None:
    assert Report([result(status)]).ok is ok


def test_an_empty_report_is_ok() -> None:
    assert Report([]).ok


def test_json_follows_the_schema() -> None:
    data = json.loads(REPORT.to_json())
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data, schema)
    assert data["schema_version"] == 1
    assert set(data) == {"schema_version", "results", "summary"}
    assert set(data["results"][0]) == {
        "subject", "kind", "distribution", "version", "check", "case", "status", "reason", "seconds",
    }  # fmt: skip
    assert data["summary"] == {
        "ok": False, "total": 6, "passed": 1, "failed": 1, "error": 1, "skipped": 1, "xfailed": 1, "xpassed": 1,
        "subjects": 2, "seconds": 1.5,
    }  # fmt: skip


@pytest.mark.parametrize("spoil", ["status", "check", "extra"])
def test_schema_refuses(spoil: str) -> None:
    data = json.loads(REPORT.to_json())
    if spoil == "status":
        data["results"][0]["status"] = "fine"
    elif spoil == "check":
        del data["results"][0]["check"]
    else:
        data["results"][0]["extra"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json.loads(SCHEMA.read_text()))


def test_junit() -> None:
    root = ET.fromstring(REPORT.to_junit().encode())
    assert root.tag == "testsuites"
    assert root.attrib == {
        "name": "fusionkit check", "tests": "6", "failures": "2", "errors": "1", "skipped": "2", "time": "1.500",
    }  # fmt: skip
    first, second = root.findall("testsuite")
    assert (first.get("name"), first.get("tests")) == ("fusion fusionkit/summation", "5")
    assert (second.get("name"), second.get("tests")) == ("fusion mod:Cls", "1")
    cases = first.findall("testcase")
    assert cases[0].get("name") == "gradcheck[dims=[4, 4]]"
    assert len(cases[0]) == 0
    failure = cases[1].find("failure")
    assert failure is not None
    assert failure.get("message") == "a should be b; found c"
    assert [child.tag for case in cases for child in case] == ["failure", "error", "skipped", "skipped"]


def test_repr_names_what_failed() -> None:
    text = repr(REPORT)
    assert text.startswith("<Report: 1 passed, 1 failed, 1 error, 1 skipped, 1 xfailed, 1 xpassed>")
    assert "fusionkit/summation gradcheck [dims=[4, 4]] failed: a should be b; found c" in text
