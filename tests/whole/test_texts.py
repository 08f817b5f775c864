"""One dataset, model, run, vector and answer full of escapes, markup and HTML: every verb and the report show them as text."""

import json
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import tomli_w
from PIL import Image
from rich.console import Console
from rich.table import Table

from irm_lite.analysis.report.page import write_report
from irm_lite.base.speaker import BaseSpeaker
from irm_lite.cli import main as cli
from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import training_progress
from irm_lite.core.visible_text import one_line, visible
from irm_lite.llamacpp import Model
from irm_lite.scoring.speaker import Answer
from irm_lite.steering.control_vector import ControlVector
from support.analysed import analysed
from support.hostile_texts import NAME, TEXT, acting

QUICK = ["--device", "cpu", "--quant", "none", "--max-steps", "2", "--batch-size", "2", "--rank", "4", "--sample-tokens", "2"]
BOTH = ("out", "err")


@pytest.fixture(scope="module")
def place(llama_folder: Path, llama_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a .gguf, a dataset, a prompt file and a sweep, all with hostile names and texts in them."""
    folder = tmp_path_factory.mktemp("texts") / NAME
    folder.mkdir()
    shutil.copytree(llama_folder, folder / "model")
    shutil.copy(llama_gguf, folder / "model.gguf")
    rows = [{"question": f"{TEXT} {number}?", "answer": f"{number} {TEXT}"} for number in range(30)]
    (folder / "data.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    (folder / "prompts.txt").write_text(f"{NAME.replace(chr(10), ' ')}\n")
    (folder / "sweep.toml").write_text(tomli_w.dumps({"train": {"model": str(folder / "model")}, "setting": [{"name": NAME}]}))
    return folder


@pytest.fixture(autouse=True)
def hostile_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a model is asked, it says the worst, letter by letter."""
    monkeypatch.setattr(Model, "decode_pieces", lambda *_: iter(TEXT))
    monkeypatch.setattr(BaseSpeaker, "_answer", lambda _speaker, tokens: Answer(TEXT, tuple(tokens), False))


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Any:
    """Give a function that runs a verb, looks at all that came out, also past Python, and gives it."""

    def run(*arguments: object, code: int = 0) -> str:
        capfd.readouterr()
        assert cli.run([str(each) for each in arguments]) == code, capfd.readouterr().err
        said = capfd.readouterr()
        for name in BOTH:
            assert not acting(getattr(said, name)), (arguments[0], name, acting(getattr(said, name)))
        return said.out + said.err

    return run


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A trained, exported and recorded run."""
    out = place / f"r{NAME[1:]}"
    data = ["--model", place / "model", "--data", place / "data.jsonl", "--site", "block", "--layers", "1-2"]
    for arguments in (
        ["train", *data, *QUICK, "--out", out, "--quiet"],
        ["export", out, "--method", "mean", "--gguf", place / "model.gguf", "--quiet"],
        ["record", out, "--limit", "2", "--new-tokens", "2", "--keep", "1", "--quiet"],
    ):
        assert cli.run([str(each) for each in arguments]) == 0
    return out


@pytest.mark.slow
def test_training_and_what_is_made_of_it(place: Path, say: Any, tmp_path: Path) -> None:
    data = ["--model", place / "model", "--data", place / "data.jsonl", "--site", "block", "--layers", "1-2"]
    out = tmp_path / NAME
    said = say("train", *data, *QUICK, "--out", out)
    assert "[bold red]b[@click=app.quit]c<img src=x onerror=alert(1)>" in said
    assert "</script><script>alert(1)</script>" in said  # the sample
    assert one_line(str(out)) in said
    say("export", out, "--method", "mean", "--gguf", place / "model.gguf")
    say("eval", out, "--questions", "1", "--max-new-tokens", "2", "--gguf", place / "model.gguf")
    say("record", out, "--prompts", place / "prompts.txt", "--new-tokens", "2", "--name", "new")
    say("ablate", out, "--recording", "new", "--samples", "2")
    say("data", "check", place / "data.jsonl")
    vector = ControlVector.load(out / "export" / "vector.gguf")
    vector.metadata["data"] = NAME
    vector.save(tmp_path / "named.gguf")
    assert "[bold red]" in say("vector", "info", tmp_path / "named.gguf")
    say("publish", tmp_path / "named.gguf", "--to", tmp_path / f"v{NAME[1:]}", "--licence", NAME)
    say("vector", "merge", out / "export" / "vector.gguf", "-o", tmp_path / f"m{NAME[1:]}.gguf")
    say("models", "fit", "--model", place / "model", "--memory", "8GB")
    say("bake", out, "--gguf", place / "model.gguf", "-o", tmp_path / f"b{NAME[1:]}.gguf")
    say("publish", out, "--to", tmp_path / f"p{NAME[1:]}", "--title", NAME)
    say("reproduce", tmp_path / f"p{NAME[1:]}", "-o", tmp_path / f"q{NAME[1:]}", code=2)  # its data is elsewhere, and named
    say("train", "--resume", tmp_path / "absent" / NAME, code=2)


@pytest.mark.slow
def test_the_demo_and_a_sweep(place: Path, say: Any, tmp_path: Path) -> None:
    model = ["--model", place / "model.gguf", "--data", place / "data.jsonl", "--site", "block", "--layers", "1-2"]
    said = say("demo", *model, *QUICK, "--out", tmp_path / NAME)
    assert "<script>alert(1)</script>" in said
    say("sweep", place / "sweep.toml", code=2)  # no such name for a folder
    small = {"max_steps": 1, "batch_size": 2, "quant": "none", "rank": 4, "sample_tokens": 2}
    common = {"model": str(place / "model"), "data": str(place / "data.jsonl"), **small}
    good = tmp_path / f"s{NAME[1:]}.toml"
    good.write_text(tomli_w.dumps({"train": common, "grid": {"seed": [0]}}))
    for _ in range(2):
        say("sweep", good, "--out", tmp_path / f"o{NAME[1:]}")


@pytest.mark.slow
def test_answers_and_the_server(place: Path, run: Path, say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ["generate", "--gguf", place / "model.gguf", "-p", TEXT, "--max-new-tokens", "4"]
    for steering in ([], ["--vector", run / "export" / "vector.gguf"], ["--irm", run]):
        assert "[link=http://x]y[/link]" in say(*ask, *steering)
    assert json.loads(say(*ask, "--json"))["text"] == TEXT
    lines: list[dict[str, Any]] = [
        {"do": "load", "irm": str(run)},
        {"do": "load", "vector": NAME},
        {"do": NAME},
        {"do": "chat", "messages": TEXT},
    ]
    lines += [{"do": "chat", "columns": [NAME], "messages": [{"role": "user", "content": TEXT}]}]
    lines += [{"do": "chat", "id": NAME, "messages": [{"role": "user", "content": TEXT}], "max_new_tokens": 2}]
    text = b"".join(json.dumps(each).encode() + b"\n" for each in lines) + TEXT.encode()
    stdin: Any = StringIO()
    stdin.buffer = BytesIO(text)
    monkeypatch.setattr("sys.stdin", stdin)
    events = [json.loads(line) for line in say("serve", "--gguf", place / "model.gguf").splitlines()]
    assert {each["kind"] for each in events} >= {"ready", "error", "token", "end"}
    assert {each["id"] for each in events if each["kind"] == "token"} == {NAME}


@pytest.mark.slow
def test_calibrate(place: Path, run: Path, say: Any, tmp_path: Path) -> None:
    choice = ["--strengths", "1", "--layers", "1", "--gguf", place / "model.gguf", "--data", place / "data.jsonl"]
    say("calibrate", run / "export" / "vector.gguf", *choice, "--picture", tmp_path / f"p{NAME[1:]}.png")
    dial = ["--by", "score", "--questions", "1", "--strengths", "1", "--gguf", place / "model.gguf", "--data", "anger"]
    say("calibrate", run / "export" / "vector.gguf", *dial, "--picture", tmp_path / f"d{NAME[1:]}.png")


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_errors_and_tracebacks(place: Path, say: Any, debug: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    absent = place / f"n{NAME[1:]}"
    for arguments in (
        [NAME],
        ["data", NAME],
        ["train", "--model", absent],
        ["train", f"--{NAME}"],
        ["train", "--data", absent],
        ["train", "--config", absent],
        ["train", "--irm", NAME],
        ["export", absent],
        ["eval", absent],
        ["bake", absent, "--gguf", absent, "-o", absent],
        ["generate", "--gguf", absent, "-p", "x"],
        ["generate", "--gguf", place / "model.gguf", "--vector", place / "data.jsonl", "-p", "x"],
        ["record", absent],
        ["heatmap", absent],
        ["analyze", absent, "-o", absent],
        ["ablate", absent],
        ["sweep", absent],
        ["vector", "info", place / "model.gguf"],
        ["data", "check", absent],
        ["data", "rewrite", "--prompt", absent],
        ["models", "fit", "--model", absent],
        ["serve", "--gguf", absent],
    ):
        assert say(*arguments, *debug, code=2).strip()

    def fail(*_: object) -> None:
        raise RuntimeError(TEXT)

    monkeypatch.setattr("irm_lite.data.check.check", fail)
    assert "alert(1)" in say("data", "check", place / "data.jsonl", *debug, code=1)


def test_a_warning_of_a_library_is_one_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    cli._show_warning(UserWarning(TEXT), UserWarning, "file.py", 1)
    said = capsys.readouterr().err
    assert not acting(said)
    assert said.count("\n") == 1


@pytest.mark.slow
def test_pictures_and_the_report(run: Path, say: Any, tmp_path: Path) -> None:
    for kind in ("png", "svg"):
        folder = tmp_path / f"{kind}{NAME[1:]}"
        say("heatmap", run, "--format", kind, "-o", folder)
        say("heatmap", run / "export" / "vector.gguf", "--format", kind, "-o", folder)
        drawn = sorted(folder.iterdir())
        assert {each.parent for each in drawn} == {folder}
        for path in drawn:
            if kind == "svg":
                elements = {
                    re.sub(r"^\{.*\}", "", each.tag) for each in ElementTree.parse(path).iter() if isinstance(each.tag, str)
                }
                assert not elements & {"script", "img", "a", "foreignObject"}
            else:
                Image.open(path).verify()
    said = say("analyze", run, "-o", tmp_path / NAME, "--samples", "3")
    assert one_line(str(tmp_path / NAME / "report.html")) in said
    page = (tmp_path / NAME / "report.html").read_text(encoding="utf-8")
    assert_only_ours(page)
    assert visible(run.name) in Page(page).text


class Page(HTMLParser):
    """The elements with their attributes, the text, and what stands in scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[tuple[str, str]] = set()
        self.text, self.scripts = "", 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements |= {(tag, name) for name, _ in attrs} | {(tag, "")}
        self.scripts += tag == "script"

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_only_ours(page: str) -> None:
    """No element and no attribute but those that stand in the template itself."""
    template = (Path(cli.__file__).parents[1] / "analysis" / "report" / "templates" / "report.html").read_text(encoding="utf-8")
    bare = re.sub(r"\{%.*?%\}|\{\{.*?\}\}", " ", template)
    ours = Page(bare).elements
    found = Page(page)
    assert found.elements <= ours, found.elements - ours
    assert found.scripts == 2  # the data, and ours
    assert not acting(page)


def test_the_whole_report_of_a_hostile_analysis(tmp_path: Path) -> None:
    document, heatmaps = analysed([f"{name}{TEXT}" for name in "ab"], hostile=TEXT)
    page = write_report(document, heatmaps, tmp_path).read_text(encoding="utf-8")
    assert_only_ours(page)
    assert Page(page).text.count("[bold red]b[@click=app.quit]c<img src=x onerror=alert(1)>") > 20


# What shows itself on a terminal

_RICHS_OWN = re.compile(r"\x1b\[[\d;]*m|\x1b\[\d*[AK]|\x1b\[\?25[lh]|\x1b\[1?G|\r")


def test_on_a_terminal_nothing_but_richs_own_acts() -> None:
    screen, output = StringIO(), Output(Common())
    output.console = Console(file=screen, force_terminal=True, width=100, highlight=False, markup=False, color_system="truecolor")
    about = {"irm": "lite", "parameters": 1, "layers": TEXT, "model": TEXT, "device": TEXT, "dtype": TEXT, "max_steps": 2}
    with training_progress(output, TEXT) as listen:
        read = {"file": TEXT, "as": TEXT, "samples": {"train": 1}, "split_note": TEXT}
        listen({"kind": "start", "samples": {"train": 1}, "data_read": read, **about})
        listen({"kind": "step", "step": 1, "max_steps": 2, "loss": 1.0, "tokens_per_second": 1.0, "memory_bytes": 1})
        listen({"kind": "eval", "step": 1, "nll": 1.0, "of": TEXT})
        listen({"kind": "sample", "prompt": TEXT, "text": TEXT})
        listen({"kind": "warning", "text": TEXT})
        listen({"kind": "end", "reason": TEXT})
    shown = _RICHS_OWN.sub("", screen.getvalue())
    assert not acting(shown)
    assert "[bold red]b" in shown


def test_cells_that_nobody_made_safe_are(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(TEXT, title=TEXT)
    table.add_row(TEXT)
    Output(None).result({}, table, TEXT)
    said = capsys.readouterr().out
    assert not acting(said)
    assert said.rstrip("\n").splitlines()[-1] == one_line(TEXT)  # whatever breaks lines in it
