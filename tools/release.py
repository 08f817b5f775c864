"""`make release`: wheel and sdist into dist/, each tried in a fresh environment, with a bill of materials and hashes.

    python tools/release.py [--out dist] [--first torch==2.13.0] [--dirty]

It needs a package index (or pip's cache of one) and publishes nothing: what is in dist/ at the end is ready to be.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import tomllib
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {"irm_lite": "irm_lite", "models": "irm_lite_models", "tui/irm_lite_tui": "irm_lite_tui"}  # in the checkout: installed
SUMS = "SHA256SUMS"
SCHEMAS = {  # check-jsonschema's own copies: nothing is fetched
    "citation-file-format": ("CITATION.cff",),
    "github-issue-config": (".github/ISSUE_TEMPLATE/config.yml",),
    "github-issue-forms": (".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/wish.yml"),
}
IMPORTS = """
import importlib, pkgutil, sys
without, extras = [], set(sys.argv[1:])
names = [root for root in ("irm_lite", "irm_lite_models", "irm_lite_tui")]
for root in list(names):
    names += [each.name for each in pkgutil.walk_packages(importlib.import_module(root).__path__, root + ".")]
for name in names:
    if name.endswith("__main__"):
        continue
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in extras:
            raise
        without.append(name)
print(len(names) - len(without), "modules,", len(without), "need an extra")
"""

VALID = """
import sys
from pathlib import Path
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(Path(sys.argv[1]).read_text(encoding="utf-8"))
sys.exit(f"release: not valid CycloneDX: {problem}" if problem else 0)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="replaced if it is there [dist]")
    parser.add_argument("--first", action="append", default=[], help="installed first in each environment: a CPU build of torch")
    parser.add_argument("--dirty", action="store_true", help="try it with changes that are not committed (they are left out)")
    arguments = parser.parse_args()
    version = require_ready(ROOT, arguments.dirty)
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        make(version, Path(folder), arguments.out.absolute(), arguments.first)


def make(version: str, work: Path, out: Path, first: list[str]) -> None:
    """Everything, from the commit at hand. Raises SystemExit or CalledProcessError where something fails."""
    with told("tools"):
        tools = environment(work / "tools", [], "--group", f"{ROOT / 'pyproject.toml'}:release")
    with told("CITATION.cff and issue forms"):
        for schema, names in SCHEMAS.items():
            paths = [str(ROOT / name) for name in names]
            run(tools / "check-jsonschema", "--quiet", "--builtin-schema", f"vendor.{schema}", *paths)
    shutil.rmtree(out, ignore_errors=True)
    with told("sdist, and the wheel from it"):
        source = committed(work / "source")
        stamp = run("git", "-C", ROOT, "log", "-1", "--format=%ct", read=True).strip()  # the same commit, the same wheel
        run(tools / "python", "-m", "build", "--outdir", out, source, read=True, SOURCE_DATE_EPOCH=stamp)
        run(tools / "twine", "check", "--strict", *sorted(map(str, out.iterdir())))
    wheel, sdist = (next(iter(out.glob(pattern))) for pattern in ("*.whl", "*.tar.gz"))
    for kind, package, extra in (("wheel", wheel, ""), ("sdist", sdist, "[serve]")):
        with told(f"{kind}{extra} installed in a fresh environment"):
            fresh = environment(work / kind, first, f"{package}{extra}")
        with told(f"{kind} tried"):
            tried(version, kind, fresh, source)
    with told("bill of materials"):
        materials(tools, work / "wheel", version, out / f"irm-lite-{version}.cdx.json")
    sums = [f"{digest(path)}  {path.name}" for path in sorted(out.iterdir())]
    (out / SUMS).write_text("\n".join(sums) + "\n", encoding="utf-8")
    print(f"irm-lite {version}, in {out.name}/:", *sums, sep="\n")


def require_ready(root: Path, dirty: bool = False) -> str:
    """The version, if all files that name it agree. Raises SystemExit with the fix in one line where they do not."""
    version = re.search(r'__version__ = "(.+)"', (root / "irm_lite/core/version.py").read_text(encoding="utf-8"))
    assert version is not None
    at = version[1]
    section = re.search(
        rf"^## \[{re.escape(at)}\] - (\d{{4}}-\d\d-\d\d)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M
    )
    if section is None:
        raise SystemExit(f"release: CHANGELOG.md has no section '## [{at}] - YYYY-MM-DD': give what is Unreleased that heading")
    if f'\nversion: {at}\ndate-released: "{section[1]}"\n' not in (root / "CITATION.cff").read_text(encoding="utf-8"):
        raise SystemExit(f'release: CITATION.cff names another release: write version: {at} and date-released: "{section[1]}"')
    series = ".".join(at.split(".")[:2]) + ".x"
    if f"| {series} |" not in (root / "SECURITY.md").read_text(encoding="utf-8"):
        raise SystemExit(f"release: SECURITY.md does not say whether {series} is supported: add it to the table")
    if not dirty and run("git", "-C", root, "status", "--porcelain", read=True).strip():
        raise SystemExit(
            "release: there are changes that are not committed: commit them, or try with --dirty, which leaves them out"
        )
    return at


def committed(folder: Path) -> Path:
    """The files of the commit at hand, without what a build left in the checkout."""
    archive = folder.with_suffix(".tar")
    run("git", "-C", ROOT, "archive", "--output", archive, "HEAD")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def environment(folder: Path, first: list[str], *packages: str) -> Path:
    """A fresh one with these packages, the first before the others; its bin folder."""
    venv.create(folder, with_pip=True, symlinks=True)
    programs = folder / "bin"
    for wanted in (["--upgrade", "pip"], first, packages):
        if wanted:
            run(programs / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install", *wanted)
    return programs


def tried(version: str, kind: str, programs: Path, source: Path) -> None:
    """What was installed, used from a folder where no checkout is. Raises SystemExit where something is wrong with it."""
    folder = programs.parent
    (site,) = folder.glob("lib/python*/site-packages")
    if lacking := missing(source, site):
        raise SystemExit(f"release: not in the {kind}, or another there: {', '.join(lacking)}")
    said = run(programs / "irm-lite", "--version", read=True, cwd=folder).strip()
    if said != version:
        raise SystemExit(f"release: the {kind}'s irm-lite --version says {said!r}, not {version}")
    report = json.loads(run(programs / "irm-lite", "doctor", "--json", "--quiet", read=True, cwd=folder))
    if not report["ok"]:
        raise SystemExit(f"release: the {kind}'s doctor finds {[each for each in report['checks'] if not each['ok']]}")
    imported = run(programs / "python", "-I", "-c", IMPORTS, *extras(), read=True, cwd=folder).strip()
    print(f"  irm-lite {said}; doctor: ok, {len(report['checks'])} checks; {imported}")


def missing(source: Path, site: Path) -> list[str]:
    """Files of the packages that were not installed, or are others."""
    found = []
    for place, name in PACKAGES.items():
        for path in (each for each in (source / place).rglob("*") if each.is_file()):
            installed = site / name / path.relative_to(source / place)
            if not installed.is_file() or installed.read_bytes() != path.read_bytes():
                found.append(path.relative_to(source).as_posix())
    return found


def extras() -> list[str]:
    """What only an extra brings, by the name it is imported by, and what that is built on."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {
        re.split(r"[^\w-]", each)[0].replace("-", "_") for extra in ("data", "serve", "tensorboard") for each in declared[extra]
    }
    return sorted(names | {"pydantic", "starlette"})


def materials(tools: Path, fresh: Path, version: str, target: Path) -> None:
    """What the wheel was installed with, as CycloneDX; without this machine's paths. Raises SystemExit where one is left."""
    run(
        tools / "cyclonedx-py", "environment", "--output-reproducible", "--pyproject", ROOT / "pyproject.toml",
        "--of", "JSON", "--output-file", target, fresh / "bin" / "python",
    )  # fmt: skip
    document = json.loads(target.read_text(encoding="utf-8"))
    for component in document["components"]:
        references = component.get("externalReferences", [])
        component["externalReferences"] = [each for each in references if not each["url"].startswith("file:")]
    document["metadata"]["component"] |= {
        "version": version,
        "purl": f"pkg:pypi/irm-lite@{version}",
    }  # it is dynamic in pyproject.toml
    text = json.dumps(document, indent=2) + "\n"
    if str(fresh.parent) in text or str(Path.home()) + "/" in text:
        raise SystemExit("release: the bill of materials names a path of this machine")
    target.write_text(text, encoding="utf-8")
    run(tools / "python", "-c", VALID, target)
    print(f"  {len(document['components'])} components")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def told(what: str) -> Iterator[None]:
    """What is going on, and how long it took."""
    print(f"{what} ...", flush=True)
    began = time.monotonic()
    yield
    print(f"  {time.monotonic() - began:.0f} s", flush=True)


def run(*command: object, read: bool = False, cwd: Path | None = None, **variables: str) -> str:
    """What it prints, where that is to be read. Raises CalledProcessError where it fails."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    options = {"stdout": subprocess.PIPE} if read else {}
    done = subprocess.run(list(map(str, command)), check=True, text=True, cwd=cwd, env={**kept, **variables}, **options)  # type: ignore[call-overload]
    return done.stdout or ""


if __name__ == "__main__":
    main()
