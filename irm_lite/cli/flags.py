"""The settings of a training as flags, for the verbs that take them all."""

from typing import Annotated

from cyclopts import Parameter

from irm_lite.config import TrainConfig

TrainFlags = Annotated[TrainConfig | None, Parameter(name="*")]
