"""Every architecture in both runtimes: a tiny random model, converted by llama.cpp's own converter, steered alike, compared.

python benchmarks/architectures.py --llamacpp SOURCE [--only NAME ...] [--train | --adapters] [--json FILE] [--write]
python benchmarks/architectures.py --llamacpp SOURCE --folder MODEL [--train]

SOURCE is llama.cpp's source (convert_hf_to_gguf.py in it; the variable IRM_LITE_LLAMACPP_SOURCE does as well). --folder takes a
Hugging Face folder of any architecture, a small one, and says what is missing. --train trains and exports too. --write puts the
table into docs/architectures.md. Exits 1 where the runtimes do not agree.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from irm_lite.core.files.atomic import write_text
from irm_lite.core.machine.quiet import quiet_libraries
from zoo.adapting import adapter_figures
from zoo.carrying import carrying
from zoo.comparing import compare
from zoo.configs import ZOO, Tiny
from zoo.conversion import SOURCE, convert, converter
from zoo.models import write_folder
from zoo.table import agrees, missing, put_into, table
from zoo.whole_way import train_and_export

DOCUMENT = Path(__file__).parents[1] / "docs" / "architectures.md"
RESULT = Path(__file__).parent / "results" / "architectures.json"


def examined(folders: dict[str, Path], place: Path, source: Path, tiny: bool, train: bool) -> list[dict[str, Any]]:
    """One row of figures a model, by name."""
    files, failed = converted(folders, place, source, tiny)
    rows = []
    for name, folder in folders.items():
        gguf = None if files[folder] in failed else files[folder]
        row = asdict(compare(name, folder, gguf))
        if files[folder] in failed:
            row["why"]["llama.cpp"] = f"the converter: {failed[files[folder]]}"
        row |= {} if gguf is None else {**carrying(gguf), **adapter_figures(folder, gguf)}
        if train:
            work = place / f"{name}-run"
            work.mkdir()
            row["why"] |= train_and_export(folder, gguf, work)
            row["trained"] = "train" not in row["why"]
        rows.append(row)
        print(f"{name}: " + ("; ".join(missing(row)) or "all"), flush=True)
    return rows


def converted(folders: dict[str, Path], place: Path, source: Path, tiny: bool) -> tuple[dict[Path, Path], dict[Path, str]]:
    """Each folder's GGUF, and what went wrong, by GGUF."""
    files = {folder: place / f"{name}.gguf" for name, folder in folders.items()}
    failed = convert(source, files, own_vocabulary=tiny)
    strange = {folder: out for folder, out in files.items() if "pre-tokenizer" in failed.get(out, "")}
    if strange:  # what is compared are ids, so any vocabulary of the right size will do
        failed = {out: why for out, why in failed.items() if out not in strange.values()} | convert(source, strange)
    return files, failed


def adapters_alone(folders: dict[str, Path], place: Path, source: Path) -> list[dict[str, Any]]:
    """The kept rows of these models with the column of adapters made anew."""
    files, failed = converted(folders, place, source, tiny=True)
    kept = {row["name"]: row for row in json.loads(RESULT.read_text(encoding="utf-8"))}
    rows = []
    for name, folder in folders.items():
        found = {"adapter": "-"} if files[folder] in failed else adapter_figures(folder, files[folder])
        rows.append({**kept[name], **found})
        print(f"{name}: {found}", flush=True)
    return rows


def zoo_folders(chosen: Sequence[Tiny], place: Path) -> dict[str, Path]:
    """The tiny models, made."""
    return {tiny.name: write_folder(tiny, place / tiny.name) for tiny in chosen}


def _with_others(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These rows and those that are kept of other architectures, in the zoo's order."""
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else []
    found = {row["name"]: row for row in (*kept, *rows)}
    return [found[tiny.name] for tiny in ZOO if tiny.name in found]


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llamacpp", metavar="SOURCE", help=f"llama.cpp's source; default: ${SOURCE}")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[tiny.name for tiny in ZOO], help="these architectures alone")
    parser.add_argument("--folder", type=Path, help="a model's folder instead of the tiny ones")
    parser.add_argument("--train", action="store_true", help="train and export too")
    parser.add_argument("--adapters", action="store_true", help="of the tiny models the column of adapters alone, the rest as kept")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument(
        "--write", action="store_true", help=f"put the table into {DOCUMENT.name} and the figures into {RESULT.name}"
    )
    options = parser.parse_args(given)
    options.source = converter(options.llamacpp)
    if options.source is None:
        parser.error(
            f"llama.cpp's source is needed: --llamacpp SOURCE, or ${SOURCE} (it is in llama-cpp-python's sdist, vendor/llama.cpp)"
        )
    if options.adapters:
        _require_rows(parser, options)
    return options


def _require_rows(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """The rest of each row is what was kept of it."""
    if options.folder:
        parser.error("--adapters is of the tiny models: leave out --folder")
    kept = {row["name"] for row in json.loads(RESULT.read_text(encoding="utf-8"))}
    new = [tiny.name for tiny in ZOO if tiny.name not in kept and (not options.only or tiny.name in options.only)]
    if new:
        parser.error(f"there is no row of {new[0]} yet: run it with --train --write first")


def main(given: Sequence[str] | None = None) -> int:
    """The benchmark's exit code."""
    options = _arguments(given)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary, quiet_libraries():
        place = Path(temporary)
        if options.folder:
            folders = {options.folder.resolve().name: options.folder}
        else:
            folders = zoo_folders([tiny for tiny in ZOO if not options.only or tiny.name in options.only], place)
        if options.adapters:
            rows = adapters_alone(folders, place, options.source)
        else:
            rows = examined(folders, place, options.source, not options.folder, options.train)
    print("\n" + table(rows))
    for target in [options.json, RESULT if options.write else None]:
        if target is not None:
            write_text(target, json.dumps(_with_others(rows) if target == RESULT else rows, indent=1) + "\n")
    if options.write:
        write_text(DOCUMENT, put_into(DOCUMENT.read_text(encoding="utf-8"), table(_with_others(rows))))
    return 0 if all(map(agrees, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
