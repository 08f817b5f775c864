"""The form's fields, made from TrainConfig: its types, its choices, its docs."""

import re
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from irm_lite.base.presets import presets
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, IrmLiteError
from irm_lite.steering.layers import needs_depth, parse_layers

# What most trainings set; the rest is under "more settings".
BASIC = ("model", "data", "irm", "layers", "num_train_epochs", "max_steps", "batch_size", "learning_rate", "download")


@dataclass(frozen=True)
class Field:
    """One setting. `choices` is empty for free text; a bool has yes and no."""

    name: str
    type: type
    default: Any
    choices: tuple[str, ...]
    help: str

    @property
    def label(self) -> str:
        return self.name.replace("_", " ")

    def shown(self, value: Any) -> str:
        """A value as the form writes it."""
        if self.type is bool:
            return "yes" if value else "no"
        return f"{value:g}" if self.type is float else str(value)

    def parse(self, text: str) -> Any:
        """The value of a text. Raises InputError where the text is not one."""
        text = text.strip()
        if self.type is bool:
            return text == "yes"
        if self.type is str:
            return text
        try:
            return self.type(text)
        except (ValueError, OverflowError):
            kind = "a whole number" if self.type is int else "a number"
            raise InputError(f"{text!r} is not {kind}" if text else "this is empty", f"give {kind}") from None


@cache
def form_fields() -> dict[str, Field]:
    """All settings by name, in TrainConfig's order."""
    import docstring_parser

    docs = {each.arg_name: each.description or "" for each in docstring_parser.parse_from_object(TrainConfig).params}
    hints = get_type_hints(TrainConfig)
    found = {}
    for each in fields(TrainConfig):
        hint, kind = hints[each.name], type(each.default)
        choices = get_args(hint) if get_origin(hint) is Literal else ("no", "yes") if kind is bool else ()
        found[each.name] = Field(each.name, kind, each.default, choices, " ".join(docs.get(each.name, "").split()))
    return found


def read_form(texts: dict[str, str]) -> tuple[TrainConfig | None, dict[str, str]]:
    """The configuration that the texts make, or None and the errors by field name ("" where no single field is wrong)."""
    values, errors = {}, {}
    for name, field in form_fields().items():
        try:
            values[name] = field.parse(texts.get(name, field.shown(field.default)))
        except InputError as error:
            errors[name] = str(error)
    if errors:
        return None, errors
    try:
        config = TrainConfig.from_dict(values, "the form")
    except InputError as error:
        return None, {_blamed(str(error)): str(error)}
    try:
        _check_layers(config)
    except IrmLiteError as error:
        return None, {"layers": str(error)}
    return config, {}


def _blamed(message: str) -> str:
    """The field whose flag an error names first."""
    for flag in re.finditer(r"--([a-z0-9-]+)", message):
        if (name := flag[1].replace("-", "_")) in form_fields():
            return name
    return ""


def _check_layers(config: TrainConfig) -> None:
    """Check the layers against the model's depth, where a preset knows it."""
    preset = presets().get(config.model)
    if preset is not None:
        parse_layers(config.layers, preset.layers, 1 if config.chosen_site == "block" and needs_depth(config.layers) else 0)


def preset_settings(model: str) -> dict[str, str]:
    """The settings of the model's preset that replace defaults, as the form writes them."""
    preset = presets().get(model)
    known = form_fields()
    return {} if preset is None else {name: known[name].shown(value) for name, value in preset.train.items()}
