"""Steering in a model's name, for clients that can send nothing else: `demo:angry@0.8+sad`."""

import re

from irm_lite.serve.http.errors import ApiError
from irm_lite.serve.http.schema import MOST_STEERINGS, Item

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
LISTED = ("", "@0.5", "@1.5")  # scales that /v1/models has of each; any other can be asked for
_PART = re.compile(
    rf"({NAME.pattern})(?:@([+-]?(?:\d{{1,9}}\.?\d{{0,9}}|\.\d{{1,9}})|[+-]?(?:nan|inf)))?", re.ASCII | re.IGNORECASE
)


def parse_model(asked: str, name: str) -> list[Item] | None:
    """What steers the model of this name; None where it is asked for as it is. Raises ApiError where it is another model."""
    if asked == name:
        return None
    if not asked.startswith(f"{name}:"):
        raise no_model(asked, name)
    items = []
    parts = asked.removeprefix(f"{name}:").split("+")
    if len(parts) > MOST_STEERINGS:
        raise no_model(asked, name)
    for part in parts:
        match = _PART.fullmatch(part)
        if match is None:
            raise no_model(asked, name)
        items.append(Item(name=match[1], scale=float(match[2]) if match[2] else 1.0))
    return items


def no_model(asked: str, name: str) -> ApiError:
    """That there is none of this name."""
    hint = f"ask for {name!r}, or {name}:NAME@SCALE with + between several (GET /v1/models lists them)"
    return ApiError(404, "model_not_found", f"there is no model {asked[:80]!r}: {hint}", "model")


def model_names(name: str, steerings: list[str]) -> list[str]:
    """All that is listed."""
    return [name, *(f"{name}:{each}{scale}" for each in steerings for scale in LISTED)]
