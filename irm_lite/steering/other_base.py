"""Warnings where an IRM or a control vector goes into another base than the one that it was made on."""

import warnings
from typing import TYPE_CHECKING

from irm_lite.base.fingerprint import Match
from irm_lite.base.model_fingerprint import fingerprint_model
from irm_lite.core.errors import OtherBaseWarning
from irm_lite.steering.control_vector import ControlVector

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from irm_lite.steering.irm import IRM


def warn_of_other_base(model: "PreTrainedModel", steering: "IRM | ControlVector") -> None:
    """Issue an OtherBaseWarning where an IRM or a vector was made on other weights than this model's, or quantised otherwise.

    Raises VectorError where it was made for another shape. No warning where it does not name its base.
    """
    match = Match()
    if isinstance(steering, ControlVector):
        if steering.metadata.get("base.weights"):
            match = steering.require_fit(fingerprint_model(model), "this model")
    elif steering.made_on is not None:
        match = fingerprint_model(model).match(steering.made_on, "the IRM", "this model")
    for line in filter(None, (match.warning, match.note)):
        warnings.warn(line, OtherBaseWarning, stacklevel=4)  # where `with inject(...)` stands
