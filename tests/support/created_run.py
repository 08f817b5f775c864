"""What the runs in tests/runs/ are created with."""

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.config import TrainConfig

CONFIG = TrainConfig(data="joy", irm="static", layers="0-3,7", learning_rate=0.25, seed=7)
PRINT = Fingerprint("llama", 30, 576, "ab" * 32, "nf4")
