"""The first rows of a dataset, to preview before the training."""

from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.paths import expanded
from irm_lite.data.dataset import SHIPPED, Example, load_dataset

_ROWS = 5
_LARGEST = 64 << 20  # bytes that are read for a look


def read_head(spec: str, answer_column: str) -> tuple[list[Example], str, bool]:
    """(first training rows, a line about the data, whether something is wrong). Raises nothing; nothing is downloaded."""
    try:
        path = expanded(spec)
        if path.is_file() and path.stat().st_size > _LARGEST:
            return [], f"{path.stat().st_size >> 20} MB: too large to preview here; irm-lite data check reads it", False
        dataset = load_dataset(spec, answer_column)
    except (IrmLiteError, OSError, ValueError) as error:
        return [], str(error), True
    parts = f"{len(dataset.train)} to train on, {len(dataset.validation)} to validate, {len(dataset.test)} to test"
    if dataset.reading.file != SHIPPED:
        parts = "; ".join(filter(None, (f"{parts}, read as {dataset.reading}", dataset.reading.split_note)))
    return dataset.train[:_ROWS], parts, False
