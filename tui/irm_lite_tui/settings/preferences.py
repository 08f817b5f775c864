"""What the UI saves between sessions and what its user sets, in the platform's settings folder or in $IRM_LITE_CONFIG.

The UI writes state.toml. tui.toml is the user's: it overrides state.toml and is never written.
"""

import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from irm_lite.core.files.atomic import write_text
from irm_lite.core.files.paths import system_folder
from irm_lite.core.files.reading import read_toml


@dataclass
class Preferences:
    """Each field is a setting of either file; `keys` of tui.toml only."""

    theme: str = "irm-dark"
    """Textual's name of the colour theme."""
    sort: str = "age"
    """The column that the runs are sorted by."""
    descending: bool = False
    """Whether that order is reversed."""
    colours: str = "blue-orange"
    """The heatmap's colour map."""
    robust: bool = True
    """Whether the heatmap reaches full colour at the 99.5th percentile; else at the largest |v|."""
    keys: dict[str, str] = field(default_factory=dict)
    """The user's keys: id of a binding (docs/keys.md) -> key, as in `quit = "f10"`; several are separated by commas."""


def settings_folder() -> Path:
    """Where both files are."""
    folder = os.environ.get("IRM_LITE_CONFIG")
    if folder:
        return Path(folder)
    import platformdirs

    return system_folder(platformdirs.user_config_path)


def load_preferences() -> tuple[Preferences, list[str]]:
    """The preferences, and a line for each file that could not be used in full."""
    kept, complaints = Preferences(), []
    for name in ("state.toml", "tui.toml"):
        path = settings_folder() / name
        try:
            refused = _take(kept, read_toml(path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            complaints.append(f"{path} cannot be read ({error}): fix or remove it; defaults are used")
            continue
        if refused:
            complaints.append(f"{path}: {', '.join(refused)} of the wrong type: fix it; the default is used")
    return kept, complaints


def _take(kept: Preferences, found: dict[str, Any]) -> list[str]:
    """Take over the values of the right type; returns the names of the others."""
    refused = []
    for each in fields(Preferences):
        value = found.get(each.name, getattr(kept, each.name))
        usable = type(value) is type(getattr(kept, each.name))
        if usable and isinstance(value, dict):
            usable = all(isinstance(key, str) for key in value.values())
        if usable:
            setattr(kept, each.name, value)
        else:
            refused.append(each.name)
    return refused


def save_preferences(preferences: Preferences, *changed: str) -> str:
    """Write these settings into state.toml, all if none is named; returns a line about what went wrong, empty if nothing did.

    What is not named stays as it stands there: another UI may have changed it.
    """
    import tomli_w

    path = settings_folder() / "state.toml"
    kept = Preferences()
    if changed:
        with suppress(OSError, ValueError):  # none yet, or damaged
            _take(kept, read_toml(path))
    values = {name: getattr(preferences if name in changed or not changed else kept, name) for name in asdict(kept)}
    del values["keys"]
    try:
        write_text(path, tomli_w.dumps(values))
    except OSError as error:
        return f"{path} cannot be written ({error.strerror}): preferences are not saved"
    return ""
