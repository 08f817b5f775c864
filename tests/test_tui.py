"""The first screen lists runs, as text, whatever is in them."""

import json
from pathlib import Path

from textual.widgets import DataTable

from irm_lite.config import TrainConfig
from irm_lite.fingerprint import Fingerprint
from irm_lite.run import RunDirectory
from irm_lite_tui.app import IrmLiteApp


async def test_runs_are_listed_with_their_state(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "angry [red]one")
    run.create(TrainConfig(data="anger"), Fingerprint("llama", 30, 576, "0" * 64), {})
    run.append_event("step", step=3, max_steps=75)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.toml").write_text("format = ")
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(120, 20)) as pilot:
        table = app.query_one(DataTable)
        rows = {str(row[0]): [str(cell) for cell in row] for row in (table.get_row_at(n) for n in range(table.row_count))}
        assert rows["angry [red]one"][1:6] == ["unfinished", "demo", "anger", "lite", "3/75"]
        assert rows["broken"][1] == "unreadable"
        with (run.path / "events.jsonl").open("a") as file:
            file.write(json.dumps({"kind": "end", "reason": "done", "best_nll": 2.25}) + "\n")
        await pilot.press("r")
        newest = [[str(cell) for cell in table.get_row_at(n)] for n in range(table.row_count)]
        assert any(row[1] == "done" and row[6] == "2.250" for row in newest)


async def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    app = IrmLiteApp(tmp_path / "none")
    async with app.run_test(size=(80, 24)):
        assert not app.query_one(DataTable).display
        assert "irm-lite demo" in str(app.query_one("#empty").render())
