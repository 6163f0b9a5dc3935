"""The report as text, and in headless Chromium where there is one."""

from __future__ import annotations

import base64
import json
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fusionkit import cli
from tests import run_records

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = '</script><img src=x onerror="document.title=1">'


def groups_of(text: str) -> list[dict[str, Any]]:
    """Return the data in a page."""
    (packed,) = re.findall(r'<script type="text/plain" id="packed">([A-Za-z0-9+/=]*)</script>', text)
    groups: list[dict[str, Any]] = json.loads(zlib.decompress(base64.b64decode(packed)))["groups"]
    return groups


def put(folder: Path, name: str, accuracy: float, **changes: Any) -> None:
    """Write the record of a completed run that has everything the report shows."""
    shown = {
        "encoder": "none",
        "metrics": {"accuracy": accuracy},
        "history": {"loss": [1.0, 0.5, 0.25], "accuracy": [0.5, 0.8, accuracy], "lr": [1, 1, 1]},
        "robustness": {
            "missing": {"a": 0.7, "b": 0.8},
            "only": {"a": 0.6, "b": 0.5},
            "noisy": {"a": 0.75, "b": 0.85},
            "noise": {"0.5": 0.8, "1": 0.7, "2": 0.4},
        },
        "data": {"name": "mfeat", "label": "mfeat", "digest": "11", "test_rows": 20, "training_rows": 80},
    }
    run_records.put(folder, name, **{**shown, **changes})


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report of runs of two data sets, some of them odd."""
    from fusionkit.config import compose

    runs = tmp_path_factory.mktemp("runs")
    for seed, accuracy in enumerate((0.9, 0.94)):
        config = compose([f"seed={seed}", "train.epochs=3"])
        put(runs, f"dense{seed}", accuracy, seed=seed, config=config)
    put(runs, "lowrank", 0.85, fabrication="lowrank", l=7)
    put(runs, "large", 0.8, fabrication="lowrank", l=100)
    put(runs, "summation", 0.97, fusion="summation", fabrication=None, encoder="linear", l=0)
    put(runs, "bare", 0.5, fusion="concatenation", fabrication=None, l=0, history=None, robustness=None, seconds=None)
    other = {"name": "npz", "label": HOSTILE, "digest": "22"}
    odd = {"history": {"loss": [None]}, "robustness": {"missing": {}}}
    put(runs, "other", 0.6, data=other, fusion=HOSTILE, fabrication=None, **odd)
    put(runs, "failed", 0.0, status="failed", error=HOSTILE)
    (runs / "broken").mkdir()
    (runs / "broken" / "result.json").write_text('{"schema_version": 1, "sta')
    file = runs / "broken" / "report.html"
    assert cli.main(["leaderboard", str(runs), "--html", str(file)]) == 0
    return file


@pytest.fixture(scope="module")
def metrics_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report of two tables of one data set: by validation accuracy, and by rmse with a run of neither part."""
    runs = tmp_path_factory.mktemp("metrics")
    data = {"data": {"name": "table", "label": "own", "digest": "33"}, "task": "classification", "metric": "accuracy"}
    for name, test, validation, size in (("low", 0.99, 0.8, 90), ("high", 0.8, 0.9, 80)):
        history = {"loss": [2.0, 1.0], "accuracy": [0.1, test], "validation_accuracy": [0.4, validation]}
        put(runs, name, test, **data, validation={"accuracy": validation}, history=history, l=size)
    for name, value, size in (("near", 12.0, 50), ("near1", 13.0, 50), ("far", 150.0, 5)):
        history = {"loss": [2.0, 1.0], "rmse": [20.0, value]}
        regression = {"task": "regression", "metric": "rmse", "metrics": {"rmse": value, "r2": 0.5}, "history": history}
        put(runs, name, 0.0, **{**data, **regression}, seed=int(name[-1] == "1"), l=size)
    put(runs, "whole", 0.0, **{**data, "task": "regression", "metric": "rmse", "metrics": {}, "l": 1, "history": None})
    assert cli.main(["leaderboard", str(runs), "--html", str(runs / "report.html")]) == 0
    return runs / "report.html"


def test_it_is_self_contained(page_file: Path) -> None:
    text = page_file.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", re.sub(r"&lt;.*?&gt;", "", text).replace("\\u003c", ""))
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert text.count("</script>") == 2
    assert HOSTILE not in text


def test_the_table_needs_no_script(page_file: Path) -> None:
    text = page_file.read_text()
    other, mfeat = (part.split("</tbody>")[0] for part in text.split("<tbody>")[1:])
    assert (other.count("<tr>"), mfeat.count("<tr>")) == (1, 5)
    assert "<td class=number>0.9200</td><td class=number>0.0283</td>" in mfeat
    assert "&lt;/script&gt;" in other
    assert "<h2>mfeat: classification, ranked by test accuracy (no run has a validation part)</h2>" in text


def test_rows_are_data_and_the_first_are_html(tmp_path: Path) -> None:
    history = {"loss": [1 / epoch for epoch in range(1, 1000)], "accuracy": [0.5] * 999}
    for i in range(230):
        put(tmp_path, str(i), i / 1000, fusion=HOSTILE, fabrication=None, l=i, history=history if i == 229 else None)
    assert cli.main(["leaderboard", str(tmp_path), "--html", str(tmp_path / "report.html")]) == 0
    text = (tmp_path / "report.html").read_text()
    assert text.split("<tbody>")[1].split("</tbody>")[0].count("<tr>") == 100
    assert HOSTILE not in text
    assert text.count("</script>") == 2
    groups = groups_of(text)
    assert [group["l"] for group in groups] == list(reversed(range(230)))
    heads = re.findall(r'data-key="(\w+)"', text.split("<tbody>")[0])
    assert all(len(group["cells"]) == len(heads) for group in groups)
    by_head = dict(zip(heads, groups[7]["cells"], strict=True))
    assert (by_head["fusion"], by_head["l"], by_head["value"]) == (HOSTILE, "222", "0.2220")
    _, loss = groups[0]["curves"]
    assert (loss["epochs"], loss["step"], len(loss["values"]), loss["values"][-1]) == (999, 5, 200, 0.001)


def test_a_table_per_metric(metrics_file: Path) -> None:
    text = metrics_file.read_text()
    assert re.findall("<h2>(own: .*?)</h2>", text) == [
        "own: classification, ranked by validation accuracy",
        "own: regression, ranked by test rmse, less is better (no run has a validation part)",
    ]
    heads = [re.findall('<button type="button">(.*?)</button></th>', part) for part in text.split("<thead>")[1:]]
    assert [head[7:-1] for head in heads] == [["Validation", "Test accuracy"], ["rmse", "SD", "95 % interval"]]
    first, second = (part.split("</tbody>")[0] for part in text.split("<tbody>")[1:])
    assert re.findall(r"<td class=number>(0\.\d{4})</td>", first) == ["0.9000", "0.8000", "0.8000", "0.9900"]
    assert "<td class=number>12.50</td><td class=number>0.71</td><td class=number>4.72 – 20.28</td>" in second
    groups = groups_of(text)
    names = [[(curve["name"], curve["values"]) for curve in group["curves"]] for group in groups]
    assert names[0] == [("validation accuracy", [0.4, 0.9]), ("training loss", [2.0, 1.0])]
    assert names[2] == [("test rmse", [20.0, 12.5]), ("training loss, regression", [2.0, 1.0])]
    assert [group["on_front"] for group in groups] == [True, False, True, True, False]
    assert groups[2]["views_whole"] == 0.5


def test_what_is_left_out_is_said(page_file: Path) -> None:
    section = page_file.read_text().split('<section id="problems">')[1].split("</section>")[0]
    assert section.count("<li>") == 2
    assert "Failed: " in section
    assert "should be complete JSON" in section


def test_commands(page_file: Path) -> None:
    text = page_file.read_text()
    groups = groups_of(text)
    commands = [run["command"] for group in groups for run in group["list"]]
    assert "fusionkit run train.epochs=3" in commands
    assert "fusionkit run train.epochs=3 seed=1" in commands
    assert commands.count(None) == 5


def test_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    assert cli.main(["leaderboard", str(tmp_path / "runs"), "--html", str(tmp_path / "report.html")]) == 1
    assert "There is no completed run." in (tmp_path / "report.html").read_text()
    assert "should contain a completed run; found none." in capsys.readouterr().err


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return headless Chromium; skip where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with driver.sync_playwright() as running:
        own = running.chromium.executable_path  # There after `playwright install chromium`.
        found = [
            path for name in (own, "chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))
        ]
        if not found:
            pytest.skip("there is no Chromium on this machine")
        # Root, as in many containers, has no sandbox.
        started = running.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, page_file: Path) -> Iterator[Page]:
    """Return the open report; in the end nothing may have stood in the console."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    context.set_default_timeout(120_000)  # For machines with other work.
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(page_file.as_uri())
    yield page
    context.close()
    assert [line for line in said if not line.startswith("data:")] == []


def column(page: Page, number: int) -> list[str]:
    return [text.strip() for text in page.locator(f"#board tbody tr:visible td:nth-child({number})").all_inner_texts()]


def test_browser_sorts(page: Page) -> None:
    page.locator("#data").select_option("mfeat")
    accuracy = page.get_by_role("button", name="Accuracy", exact=True)
    accuracy.click()
    assert column(page, 10) == ["0.9700", "0.9200", "0.8500", "0.8000", "0.5000"]
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    accuracy.click()
    assert column(page, 10) == ["0.5000", "0.8000", "0.8500", "0.9200", "0.9700"]
    page.locator("th[data-key=l] button").last.click()
    assert [text.split()[0] for text in column(page, 7)] == ["0", "0", "7", "35", "100"]
    # Without a value: at the end in both directions.
    for _ in range(2):
        page.locator("th[data-key=seconds] button").last.click()
        assert column(page, 13)[-1] == ""


def test_browser_filters(page: Page) -> None:
    page.locator("#search").fill("LOWRANK conc")
    assert column(page, 4) == ["lowrank", "lowrank"]
    assert page.locator("#shown").inner_text() == "2 of 6 groups shown"
    page.locator("#most").fill("50")
    assert len(column(page, 4)) == 1
    assert page.locator("#against circle").count() == 1
    page.locator("#reset").click()
    assert len(column(page, 4)) == 6
    page.locator("#data").select_option("mfeat")
    page.locator("#fusion").select_option("summation")
    assert column(page, 3) == ["summation"]
    page.locator("#search").fill("nothing like that")
    assert page.locator("#shown").inner_text() == "0 of 6 groups shown"
    assert page.locator("#against svg").count() == 0


def test_browser_shows_a_screen_at_a_time(browser: Browser, tmp_path: Path) -> None:
    for i in range(230):
        put(tmp_path, str(i), i / 1000, fusion="even" if i % 2 else "odd", l=i)
    assert cli.main(["leaderboard", str(tmp_path), "--html", str(tmp_path / "report.html")]) == 0
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((tmp_path / "report.html").as_uri())
        page.locator("#board tbody input").first.wait_for()
        before, after = (page.get_by_role("button", name=name) for name in ("Previous", "Next"))
        sizes = page.locator("#board tbody td:nth-child(6)")
        assert (before.is_disabled(), sizes.count(), page.locator("#runs details").count()) == (True, 100, 100)
        after.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert page.locator(".pages span").inner_text() == "rows 201 to 230 of 230"
        assert (after.is_disabled(), sizes.count(), page.locator("#runs details").count()) == (True, 30, 30)
        assert page.locator("#board tbody tr").first.get_attribute("aria-rowindex") == "202"
        page.locator("#board tbody input").first.check()
        page.locator("th[data-key=l] button").click()
        assert sizes.first.inner_text().split()[0] == "0"
        before.wait_for()
        assert page.locator("#board tbody input:checked").count() == 1  # That of l = 29, which is on this page now.
        page.locator("#fusion").select_option("odd")
        assert page.locator(".pages span").inner_text() == "rows 1 to 100 of 115"
        assert page.locator("#shown").inner_text() == "115 of 230 groups shown"
        page.locator("#most").fill("50")
        assert not page.locator(".pages").is_visible()
        assert sizes.count() == 26


def test_browser_draws(page: Page) -> None:
    page.locator("#data").select_option("mfeat")
    # Without an encoder: the bare concatenation at l = 0, lowrank at 7 and dense at 35; the larger lowrank is beaten.
    corners = page.locator("#against .pareto").get_attribute("d") or ""
    assert len(re.findall("[ML]", corners)) == 5
    page.locator("#board tbody input").evaluate_all("boxes => boxes.forEach(box => box.checked && box.click())")
    assert page.locator("#curves svg[role=img]").count() == 0
    for label in (
        "show parameterized_concatenation dense n=5 on mfeat",
        "show parameterized_concatenation lowrank n=5 on mfeat",
    ):
        page.get_by_label(label).first.check()
    assert page.locator("#curves svg[role=img]").count() == 2
    assert page.locator("#curves .chart").first.locator("path[data-id]").count() == 2
    assert page.locator("#ablation rect").count() == 2 * 2 * 3
    assert "SD 0.5 → 0.8000, SD 1 → 0.7000, SD 2 → 0.4000" in page.locator("#ablation .chart").first.inner_text()
    dot = page.locator("#against circle").first
    dot.hover()
    assert re.search(r": 0\.\d{4}, l = \d+", page.locator("#tip").inner_text())


def test_browser_has_one_colour_for_a_fabrication(page: Page) -> None:
    page.locator("#data").select_option("mfeat")
    page.locator("#board tbody input").evaluate_all("boxes => boxes.forEach(box => box.checked && box.click())")
    both = page.get_by_label("show parameterized_concatenation lowrank n=5 on mfeat")
    for i in range(2):
        both.nth(i).check()
    dots = page.locator("#against [data-id]")
    colours = dict(dots.evaluate_all("dots => dots.map(dot => [dot.dataset.id, dot.getAttribute('stroke')])"))
    assert len(set(colours.values())) == 3  # summation, dense, lowrank twice; concatenation is below the picture
    lines = (
        page.locator("#curves .chart")
        .first.locator("path[data-id]")
        .evaluate_all(
            "all => all.map(one => [one.dataset.id, one.getAttribute('stroke'), one.getAttribute('stroke-dasharray')])"
        )
    )
    assert [colour for _, colour, _ in lines] == [colours[number] for number, _, _ in lines]
    assert len({dashes for _, _, dashes in lines}) == len(lines) == 2
    bars = page.locator("#ablation rect").evaluate_all("bars => bars.map(bar => bar.getAttribute('fill'))")
    assert set(bars) == {lines[0][1]}


@pytest.mark.parametrize(("epochs", "marks"), [(1, ["1", "2"]), (3, ["1", "2", "3"])])
def test_browser_counts_whole_epochs(browser: Browser, tmp_path: Path, epochs: int, marks: list[str]) -> None:
    history = {"loss": [0.5] * epochs, "accuracy": [0.9] * epochs}
    put(tmp_path, "a", 0.9, history=history, l=41536)
    put(tmp_path, "b", 0.8, history=history, l=30000)
    assert cli.main(["leaderboard", str(tmp_path), "--html", str(tmp_path / "report.html")]) == 0
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((tmp_path / "report.html").as_uri())
        shown = page.locator("#curves svg").first.locator("text[text-anchor=middle]").all_text_contents()
        assert shown == [*marks, "epoch"]
        # Within a decade there is more than its beginning.
        sizes = page.locator("#against svg text[text-anchor=middle]").all_text_contents()
        assert sizes == ["30,000", "40,000", "50,000", "60,000", "70,000", "80,000", sizes[-1]]


def test_browser_shows_the_whole_table_at_1200(page: Page) -> None:
    assert page.viewport_size == {"width": 1200, "height": 900}
    page.locator("#data").select_option("mfeat")
    assert page.locator(".table").last.evaluate("box => box.scrollWidth <= box.clientWidth")


def test_browser_shows_commands(page: Page) -> None:
    details = page.locator("#runs details", has_text="parameterized_concatenation dense")
    details.first.locator("summary").click()
    assert details.first.locator("code").all_inner_texts() == [
        "fusionkit run train.epochs=3",
        "fusionkit run train.epochs=3 seed=1",
    ]


def test_browser_is_not_fooled_by_names(page: Page) -> None:
    assert page.title() != "1"
    assert page.locator("img").count() == 0
    assert HOSTILE in column(page, 3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_light_and_dark(browser: Browser, page_file: Path, scheme: str) -> None:
    context = browser.new_context(color_scheme="light" if scheme == "light" else "dark")
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(page_file.as_uri())

    def contrast() -> tuple[float, float]:
        colours = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        back, text = (sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in colours)
        return back, text

    back, text = contrast()
    assert (back > 0.9) == (scheme == "light")
    assert abs(back - text) > 0.7
    page.locator("#theme").click()
    other, text = contrast()
    assert (other > 0.9) != (scheme == "light")
    assert abs(other - text) > 0.7
    context.close()


def test_browser_narrow_window(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = page.locator("#against svg").first.bounding_box()
    assert box is not None
    assert box["width"] <= 360
    # The table scrolls inside its frame.
    assert page.locator(".table").last.evaluate("box => box.scrollWidth > box.clientWidth")


def test_browser_draws_each_metric_with_the_better_on_top(browser: Browser, metrics_file: Path) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(metrics_file.as_uri())
        titles = page.locator("#against h3").all_inner_texts()
        assert titles == [
            "own: classification by accuracy: validation accuracy",
            "own: regression by rmse: test rmse, less is better",
        ]
        heights = page.locator("#against circle").evaluate_all(
            "dots => dots.map(dot => [Number(dot.dataset.id), Number(dot.getAttribute('cy'))])"
        )
        by_id = dict(heights)
        assert sorted(by_id) == [0, 1, 2, 3]  # The run of neither part has no value.
        assert by_id[0] < by_id[1]
        assert by_id[2] < by_id[3]
        marks = page.locator("#against svg").nth(1).locator("text[text-anchor=end]").all_text_contents()
        assert [float(mark) for mark in marks] == sorted(map(float, marks), reverse=True)
        rmse = page.locator("th[data-key=value] button").last
        for order in (["12.50", "150.00", "no test part"], ["150.00", "12.50", "no test part"]):
            rmse.click()
            assert column(page, 9)[2:] == order
        for box in page.locator("#board tbody input").all():
            box.check()
        names = page.locator("#curves h3").all_inner_texts()
        assert names == ["validation accuracy", "test rmse", "training loss", "training loss, regression"]
        assert page.locator("#ablation h3").all_inner_texts()[-1].endswith(", r2")
        assert said == []


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    """Return a report of two runs of a fusion with weights, and of another without."""
    for seed, weight in enumerate((0.25, 0.5)):
        weights = {"0": {"a": weight, "b": 1 - weight}, HOSTILE: {"a": 1.0, "b": None}}
        put(tmp_path, f"says{seed}", 0.9, fusion="says", fabrication=None, seed=seed, weights=weights)
    put(tmp_path, "silent", 0.8)
    assert cli.main(["leaderboard", str(tmp_path), "--html", str(tmp_path / "report.html")]) == 0
    return tmp_path / "report.html"


def test_weights_are_means_over_runs(weights_file: Path) -> None:
    groups = groups_of(weights_file.read_text())
    assert [group["weights"] for group in groups] == [
        {"0": {"a": 0.375, "b": 0.625}, HOSTILE: {"a": 1.0, "b": None}},
        {},
    ]


def test_browser_shows_weights(browser: Browser, weights_file: Path) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(weights_file.as_uri())
        boxes = page.locator("#board tbody input")
        boxes.evaluate_all("boxes => boxes.forEach(box => box.checked && box.click())")
        assert not page.locator("#weights").is_visible()
        boxes.nth(0).check()
        cells = page.locator("#weights tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(c => c.textContent))"
        )
        assert cells == [["", "a", "b"], ["0", "0.375", "0.625"], [HOSTILE, "1.000", "-"]]
        shades = page.locator("#weights td").evaluate_all("cells => cells.map(cell => cell.style.background)")
        assert len(set(shades)) == 4
        assert page.title() != "1"
        boxes.nth(0).uncheck()
        boxes.nth(1).check()
        assert not page.locator("#weights").is_visible()


@pytest.fixture
def importance_file(tmp_path: Path) -> Path:
    """Return a report of two runs that know the importance of the views, of a single one, and of one that does not."""
    for seed, loss in enumerate((0.1, 0.2)):
        views = {"a": {"loss": 0.02, "low": 0.01, "high": 0.03, "without": None}}
        views[HOSTILE] = {"loss": loss, "low": 0.0, "high": 0.3, "without": 0.5 + loss}
        put(tmp_path, f"two{seed}", 0.9, seed=seed, views=views)
    single = {
        "a": {"loss": None, "low": None, "high": None, "without": 0.5},
        "b": {"loss": 0.25, "low": 0.2, "high": 0.3},
    }
    put(tmp_path, "single", 0.8, fusion="single", fabrication=None, views=single)
    put(tmp_path, "silent", 0.7, fusion="silent", fabrication=None)
    assert cli.main(["leaderboard", str(tmp_path), "--html", str(tmp_path / "report.html")]) == 0
    return tmp_path / "report.html"


def test_importance_is_a_mean_over_runs(importance_file: Path) -> None:
    groups = groups_of(importance_file.read_text())
    nothing = {"low": None, "high": None}
    assert [list(group["importance"].items()) for group in groups] == [
        [
            (HOSTILE, {"loss": pytest.approx(0.15), **nothing, "without": pytest.approx(0.65)}),
            ("a", {"loss": 0.02, **nothing, "without": None}),
        ],
        [
            ("b", {"loss": 0.25, "low": 0.2, "high": 0.3, "without": None}),
            ("a", {"loss": None, **nothing, "without": 0.5}),
        ],
        [],
    ]


def test_browser_shows_importance(browser: Browser, importance_file: Path) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(importance_file.as_uri())
        boxes = page.locator("#board tbody input")
        boxes.evaluate_all("boxes => boxes.forEach(box => box.checked && box.click())")
        assert not page.locator("#importance").is_visible()
        for i, wanted in (
            (0, [["View", "Fall", "accuracy without it"], [HOSTILE, "0.1500", "0.6500"], ["a", "0.0200", "-"]]),
            (
                1,
                [
                    ["View", "Fall", "95 % interval", "accuracy without it"],
                    ["b", "0.2500", "0.2000 – 0.3000", "-"],
                    ["a", "-", "-", "0.5000"],
                ],
            ),
        ):
            boxes.nth(i).check()
            cells = page.locator("#importance tr").evaluate_all(
                "rows => rows.map(row => [...row.cells].map(c => c.textContent))"
            )
            assert cells == wanted
            boxes.nth(i).uncheck()
        assert page.title() != "1"
        boxes.nth(2).check()
        assert not page.locator("#importance").is_visible()
