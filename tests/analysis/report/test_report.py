"""The report: what it shows is what it was given, nothing in it acts, and a browser shows the value under the mouse."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irm_lite.analysis.report.page import write_report
from irm_lite.core.errors import InputError
from irm_lite.core.visible_text import visible
from support import browser
from support.analysed import LOUD, analysed

VOID = {"meta", "link", "rect", "br", "input"}
HOSTILE = (
    "</script></title></style><img src=x onerror=\"window.hit=1\">' onmouseover='window.hit=1' {{7*7}}{% raw %}${7*7} "
    "[bold red]x[/] \x1b[2J\x1b]0;owned\x07\u2028\u202e\ud800<!--<script>window.hit=1"
)


class Read(HTMLParser):
    """The page as a list of tags, with the text of each kind of element; complains where a tag is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.of: dict[str, list[str]] = {}
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attributes]
        assert len({name for name, _ in attributes}) == len(attributes)
        self.of.setdefault(tag, []).append("")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        for tag in set(self._open):
            self.of[tag][-1] += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment in the page: {data}")


def written(folder: Path, names: list[str], hostile: str = "", **changes: Any) -> tuple[Read, str, dict[str, Any], dict[str, Any]]:
    document, heatmaps = analysed(names, hostile=hostile)
    html = write_report({**document, **changes}, heatmaps, folder).read_text(encoding="utf-8")
    return Read(html), html, document, heatmaps


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Read, str, dict[str, Any], dict[str, Any]]:
    return written(tmp_path_factory.mktemp("report"), ["angry", "sad", "neutral"])


def table(read: Read, *columns: str) -> list[dict[str, str]]:
    """The rows of the only table that has all these columns; of columns of one name the last counts."""
    found = [rows for rows in read.tables if set(columns) <= set(rows[0])]
    assert len(found) == 1
    return [dict(zip(found[0][0], row, strict=True)) for row in found[0][1:]]


def test_the_tables_show_the_documents_numbers_with_interval_and_null(report: tuple[Read, str, dict[str, Any], Any]) -> None:
    read, _, document, _ = report
    run = document["runs"][1]
    assert [line["run"] for line in table(read, "NLL: base")] == ["angry", "sad", "neutral"]
    assert table(read, "NLL: base")[1]["NLL: IRM"] == "2.327"
    test = run["striation_test"]["index_share"]
    line = table(read, "index share", "all pairs' r")[1]
    assert float(line["index share"]) == pytest.approx(test["observed"], abs=5e-4)
    field = run["field"]
    estimate = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", table(read, "index share: IRM")[1]["added [95%]"])
    assert estimate is not None
    expected = (field["added"]["neighbour_correlation"], *field["neighbour_correlation_added_95"])
    assert [float(each) for each in estimate.groups()] == pytest.approx(expected, abs=5e-4)
    line = table(read, "slope by layer")[1]
    left = field["left"]["neighbour_correlation"]
    null = re.fullmatch(r"(\S+) \((\S+)\)", line["permuted: mean (95th)"])
    assert null is not None
    assert [float(each) for each in null.groups()] == pytest.approx((left["null_mean"], left["null_95th"]), abs=5e-4)
    assert float(line["p"]) == pytest.approx(left["p"], rel=0.1)
    ablated = run["ablations"][0]
    line = table(read, "beyond controls [95%]")[2]
    assert line["effect [95%]"].startswith(f"{ablated['effect']:.3f} [{ablated['effect_95'][0]:.3f}, ")
    assert (line["controls"], line["rank"], line["ablated in"]) == ("9 random", str(ablated["rank"]), "irm")
    top = [line for line in table(read, "importance") if line["run"] == "sad"]
    assert [line["index"] for line in top][:5] == [str(each["index"]) for each in run["top"]]
    loud = next(line for line in top if line["index"] == str(LOUD))
    assert (loud["rank"], loud[""]) == ("1", "marked")
    assert float(loud["stands out: statistic"]) == pytest.approx(run["prominent"]["statistic"][0], abs=5e-4)
    spearman = table(read, "run", "1", "2", "3")
    assert float(spearman[0]["3"]) == pytest.approx(document["across"]["spearman"][0][2], abs=5e-4)
    assert [(line["runs"], line["index"]) for line in table(read, "worst rank")] == [("all runs", "7"), ("anger", "none")]
    assert table(read, "up")[0]["down"] == "\\n -1.50"
    headings = ["Findings", "Mean output by layer and index", "Runs", "Striations", "Against the gradient field of the base"]
    split = document["gradient_split"]["anger (block)"]
    line = next(line for line in table(read, "why it is here") if line["index"] == str(LOUD))
    assert (line["why it is here"], line["rank of that"]) == ("marked, loud, strong", str(split["channels"][0]["scale_rank"]))
    assert float(line["final norm"]) == pytest.approx(split["channels"][0]["final norm"], abs=5e-4)
    assert [text for text in read.of["figcaption"] if "through denominators" in text]
    headings.append("Direct, or through the norms' denominators")
    assert read.of["h2"] == [*headings, "Indices", "Across runs", "Explained without the training", "Ablations", "Logit lens"]


def test_settings_that_are_the_same_in_all_runs_are_said_once(
    report: tuple[Read, str, dict[str, Any], Any], tmp_path: Path
) -> None:
    read, _, document, _ = report
    same = document["runs"][0]["site"]
    assert "site" not in table(read, "NLL: base")[0]
    assert f"site {same}" in next(text for text in read.of["p"] if text.startswith("The same in all: "))
    runs = [{**run, "site": "attn" if number == 1 else same} for number, run in enumerate(document["runs"])]
    other, *_ = written(tmp_path, ["angry", "sad", "neutral"], runs=runs)
    assert [line["site"] for line in table(other, "NLL: base")] == [same, "attn", same]


def test_findings_come_first_in_their_own_words(report: tuple[Read, str, dict[str, Any], Any]) -> None:
    read, _, document, _ = report
    said = [" ".join(text.split()) for text in read.of["article"]]
    assert said == [f"{each['verdict']} {each['claim']} {each['text']}" for each in document["findings"]]
    assert read.tags.index("article") < read.tags.index("canvas") < read.tags.index("table")


def test_hostile_text_changes_no_tag_and_is_shown_to_the_letter(
    report: tuple[Read, str, dict[str, Any], Any], tmp_path: Path
) -> None:
    names = ["angry", "sad", f"neutral{HOSTILE}"]
    read, html, _, _ = written(tmp_path, names, HOSTILE)
    assert read.tags == report[0].tags
    assert not [each for each in read.attributes if each[1].startswith("on") or each[1] == "src"]
    shown = visible(HOSTILE)
    assert "{{7*7}}" in shown
    for tag in ("title", "h1", "h3", "option", "td", "div", "script"):
        texts = read.of[tag]
        if tag == "h1":
            assert not any(shown in text for text in texts)
        elif tag == "script":
            assert not any(each in read.of["script"][0] for each in "<>&\u2028")
        else:
            assert any(shown in text for text in texts), tag
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u202e]", html)
    assert json.loads(read.of["script"][0])[2]["name"] == visible(names[2])
    assert json.loads((tmp_path / "report.json").read_text())["runs"][2]["name"] == names[2]


def test_the_page_loads_nothing_and_runs_only_its_own_script(report: tuple[Read, str, dict[str, Any], Any]) -> None:
    read, html, _, _ = report
    assert not re.search(r"https?:|@import|url\(|//[a-z]+\.", html.replace("// ", ""))
    assert [value for _, name, value in read.attributes if name in ("src", "href")] == ["data:,"]
    policy = next(value for _, name, value in read.attributes if name == "content" and "default-src" in str(value))
    digest = base64.b64encode(hashlib.sha256(read.of["script"][1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_the_files_hold_the_document_and_the_heatmaps(tmp_path: Path) -> None:
    document, heatmaps = analysed(["one", "two"])
    heatmaps["two"][1, 3] = 1e9
    page = write_report(document, heatmaps, tmp_path / "deep" / "folder")
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.json"]
    assert json.loads((page.parent / "report.json").read_text()) == json.loads(json.dumps(document))
    for held, run in zip(json.loads(Read(page.read_text()).of["script"][0]), document["runs"], strict=True):
        values = np.frombuffer(base64.b64decode(held["values"]), "<f2").reshape(len(held["layers"]), held["width"])
        np.testing.assert_allclose(values, np.minimum(heatmaps[run["name"]], 65504), rtol=2**-11, atol=2**-25)
        assert held["layers"] == run["layers"]
        assert held["marks"] == [LOUD, 47]
        assert held["limit"] == pytest.approx(np.percentile(np.abs(values.astype(float)), 99.5), rel=1e-6)


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    bare = Read(write_report({}, {}, tmp_path).read_text())
    assert not {"section", "table", "canvas"} & set(bare.tags)
    one = Read(write_report({"runs": [{"name": "one", "seed": 0}]}, {"one": np.ones((2, 9), np.float32)}, tmp_path).read_text())
    assert one.of["h2"] == ["Mean output by layer and index", "Runs"]
    assert one.tables == [[["run", "seed"], ["one", "0"]]]
    full, _ = analysed(["one"])
    del full["gradient_split"]
    for key in ("field", "striation_test", "explanation", "ablations", "prominent", "correlations"):
        del full["runs"][0][key]
    less = Read(write_report(full, {}, tmp_path).read_text())
    assert less.of["h2"] == ["Findings", "Runs", "Striations", "Against the gradient field of the base", "Indices", "Logit lens"]
    assert less.tables[1][0][:2] == ["run", "index, layers normalised"]
    assert "figure" not in less.tags


@pytest.mark.parametrize(
    ("values", "said"),
    [(np.full((4, 9), np.nan), "all finite"), (np.ones(9), "all finite"), (np.ones((3, 9)), "3 layers, its run 4")],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(tmp_path: Path, values: Any, said: str) -> None:
    document, _ = analysed(["one"])
    with pytest.raises(InputError, match=said):
        write_report(document, {"one": values.astype(np.float32)}, tmp_path)
    assert not list(tmp_path.iterdir())


LEFT, TOP, RIGHT, BOTTOM = 44, 24, 14, 34  # CSS pixels around the data, as in report.js
RIGHT_KEY, DOWN_KEY, ESCAPE = "\ue014", "\ue015", "\ue00c"


@pytest.mark.skipif(not (browser.CHROMIUM and browser.DRIVER), reason="chromium and chromedriver are not installed")
def test_a_browser_shows_the_value_under_the_mouse(tmp_path: Path) -> None:
    document, heatmaps = analysed(["angry", f"sad{HOSTILE}"], layers=5, width=120, hostile=HOSTILE)
    heatmaps["wide"] = np.zeros((3, 5000), np.float32)
    heatmaps["wide"][1, 3333] = -1.5
    page_file = write_report(document, heatmaps, tmp_path / "report")
    with browser.opened(tmp_path / "profile", "--window-size=1000,1400") as page:
        page.open(page_file)

        def plot() -> tuple[float, float, float, float]:
            """x, y, width and height of the data in the window."""
            page.run("document.getElementById('map').scrollIntoView()")
            x, y, width, height = page.run(
                "const box = document.getElementById('heatmap').getBoundingClientRect();"
                "return [box.x, box.y, box.width, box.height]"
            )
            return x + LEFT, y + TOP, width - LEFT - RIGHT, height - TOP - BOTTOM

        def over(row: float, share: float, rows: int) -> tuple[float, float]:
            x, y, width, height = plot()
            return x + share * width, y + (row + 0.5) * height / rows

        def shown() -> list[str]:
            said = page.run("return [...document.querySelectorAll('#readout b')].map((each) => each.textContent)")
            return [str(each) for each in said]

        def expected(values: Any, row: int, index: int, layer: int) -> list[str]:
            sizes = np.abs(values.astype(np.float16).astype(float))
            in_layer, overall = ((where > sizes[row, index]).sum() + 1 for where in (sizes[row], sizes))
            return [str(layer), str(index), f"{in_layer} of {sizes.shape[1]}", f"{overall} of {sizes.size}"]

        def check(values: Any, row: int, index: int, layer: int) -> None:
            said = shown()
            assert [said[0], said[1], said[3], said[4]] == expected(values, row, index, layer)
            assert float(said[2]) == pytest.approx(float(values[row, index].astype(np.float16)), rel=1e-3)

        angry = heatmaps["angry"]
        page.move(*over(2, 31.5 / 120, 5))
        check(angry, 2, 31, 3)
        page.drag(over(0, 40.02 / 120, 5), over(0, 59.98 / 120, 5))  # the view is 40 to 59 now
        page.move(*over(4, 17.5 / 20, 5))
        check(angry, 4, 57, 5)
        page.press(RIGHT_KEY, RIGHT_KEY, RIGHT_KEY, DOWN_KEY)  # out of the view, which follows; no layer below
        check(angry, 4, 60, 5)
        page.press(ESCAPE)
        page.scroll(*over(2, 0.5, 5), -100)  # the wheel: 96 of the 120 indices, the one under the mouse stays
        page.move(*over(3, 0.5 / 96, 5))
        check(angry, 3, 12, 4)
        page.press(ESCAPE)
        page.move(*over(0, 7.5 / 120, 5))
        check(angry, 0, LOUD, 1)
        choose = "const run = document.getElementById('run'); run.value = arguments[0]; run.dispatchEvent(new Event('change'));"
        page.run(choose, 1)
        page.move(*over(1, 100.5 / 120, 5))
        check(list(heatmaps.values())[1], 1, 100, 2)
        page.run(choose, 2)
        page.move(*over(1, 3333.5 / 5000, 3))  # several indices a pixel: the one that is not zero is shown and named
        check(heatmaps["wide"], 1, 3333, 1)
        page.move(*over(2, 0.1, 3))  # the cross away
        _, _, width, height = plot()
        line = page.run(
            "const context = document.getElementById('heatmap').getContext('2d'), [x, y, width] = arguments;"
            "return [...context.getImageData(x * devicePixelRatio, y * devicePixelRatio, width, 1).data]",
            *(LEFT + int(3333.5 / 5000 * width), TOP + height / 2, 40),
        )
        assert line[2] > line[0] + 60  # blue: it is taken away
        assert min(line[-4:]) > 230  # nothing beside it
        sort = "const head = document.querySelectorAll('th')[arguments[0]]; head.firstElementChild.click();"
        sort += "return [...head.closest('table').tBodies[0].rows].map((row) => row.cells[0].textContent)"
        assert page.run(sort, 0) == ["angry", visible(f"sad{HOSTILE}")]
        assert page.run(sort, 0) == [visible(f"sad{HOSTILE}"), "angry"]
        assert page.run("return window.hit === undefined && document.querySelectorAll('img').length") == 0
        assert page.console() == []
