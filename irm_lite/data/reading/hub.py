"""Rows of the Hugging Face hub's data sets."""

import os
import reprlib

from irm_lite.core.errors import DataError, MissingPart, reason
from irm_lite.core.files.paths import is_hub_id
from irm_lite.data.reading.limits import MAX_BYTES, Rows
from irm_lite.data.splits import SPLITS


def hub_rows(name: str, download: bool) -> Rows:
    if not is_hub_id(name):
        raise DataError(
            f"hf:{reprlib.repr(name)[1:-1]} names no dataset of the hub", "write hf:owner/name; a file is given without hf:"
        )
    if os.path.lexists(name):  # datasets would take it, and with it any file that its README.md names
        raise DataError(f"hf:{name} is a folder here too", f"rename the folder ./{name}, or give its file")
    try:
        import datasets
        import huggingface_hub.constants
    except ImportError:
        raise MissingPart("Hugging Face datasets need the datasets package", "pip install 'irm-lite[data]'") from None
    # DownloadConfig(local_files_only=True) is read nowhere in datasets 5.2; these two switches are.
    offline = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not download:
        huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # the library raises many types
        hint = "check the name and the network" if download else "add --download to fetch it from the hub"
        raise DataError(f"the dataset {name} cannot be loaded ({reason(error, 120)})", hint) from None
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = offline
        if shown:
            datasets.enable_progress_bars()
    if sum(part.data.nbytes for part in loaded.values()) > MAX_BYTES:
        raise DataError(f"the dataset {name} holds more than {MAX_BYTES >> 20} MiB", "write fewer of its samples into a file")
    for split, rows in loaded.items():
        for number, row in enumerate(rows):
            yield f"{name}, {split} row {number}", row if split not in SPLITS else {**row, "split": split}
