"""irm-lite models"""

from cyclopts import App
from rich.table import Table

from irm_lite.cli.output import Common, Output
from irm_lite.presets import found_at, presets

app = App(name="models", help="Base models known by name.", help_format="plaintext")


@app.command(name="list")
def list_models(*, common: Common | None = None) -> None:
    """The presets, and where their weights are on this machine."""
    output = Output(common)
    table = Table()
    for title in ("name", "model", "parameters", "layers", "hidden", "licence", "on this machine"):
        number = title in ("parameters", "layers", "hidden")
        table.add_column(title, justify="right" if number else "left", no_wrap=number or title == "name", overflow="fold")
    rows = []
    for preset in presets().values():
        place = found_at(preset)
        licence = preset.licence + (" (gated)" if preset.gated else "")
        size = f"{preset.parameters:.2f} B"
        table.add_row(
            preset.name,
            preset.title,
            size,
            str(preset.layers),
            str(preset.hidden_size),
            licence,
            str(place or f"no: {preset.mend}"),
        )
        rows.append({**vars(preset), "found_at": None if place is None else str(place)})
    output.result({"models": rows}, table)
