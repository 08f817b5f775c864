"""What the UI keeps between sessions: tui.toml in the platform's folder for settings, or in $IRM_LITE_CONFIG."""

import os
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from irm_lite.atomic import write_text


@dataclass
class Preferences:
    """Each field is a key of the file."""

    theme: str = "irm-dark"
    """Textual's name of the colour theme."""
    sort: str = "age"
    """The column that the runs are sorted by."""
    descending: bool = False
    """Whether that order is turned round."""
    keys: dict[str, str] = field(default_factory=dict)
    """Keys of your own: id of a binding -> key, as in `quit = "f10"`; several are parted by commas."""


def preferences_file() -> Path:
    """Where they are kept."""
    folder = os.environ.get("IRM_LITE_CONFIG")
    if folder:
        return Path(folder) / "tui.toml"
    import platformdirs

    return platformdirs.user_config_path("irm-lite") / "tui.toml"


def load_preferences() -> tuple[Preferences, str]:
    """The preferences, and a line about what of the file could not be used (empty if nothing)."""
    path = preferences_file()
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        return Preferences(), ""
    except (OSError, ValueError) as error:
        return Preferences(), f"{path} cannot be read ({error}): mend or remove it; defaults are used"
    kept = Preferences()
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
    return kept, f"{path}: {', '.join(refused)} of the wrong type: mend it; the default is used" if refused else ""


def save_preferences(preferences: Preferences) -> str:
    """Write them; gives a line about what went wrong, empty if nothing."""
    import tomli_w

    path = preferences_file()
    try:
        write_text(path, tomli_w.dumps(asdict(preferences)))
    except OSError as error:
        return f"{path} cannot be written ({error.strerror}): preferences are not kept"
    return ""
