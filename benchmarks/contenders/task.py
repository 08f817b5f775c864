"""What a contender's process is told. Imports no torch: the parent, which only hands out turns, uses it too."""

from dataclasses import dataclass

from irm_lite.core.errors import InputError

NAMES = (
    "paper",
    "qlora",
    "qlora-bf16",
    "qlora-checkpointed",
    "lite",
    "lite-float32",
    "lite-4bit",
    "lite-checkpointed",
    "static",
    "lora",
    "paper-irm",
    "paper-irm-checkpointed",
    "products",
    "products-float32",
)
BATCH_SIZE = 8  # samples, of every contender
MAX_LENGTH = 512  # tokens; longer samples are left out for all
SEED = 0


@dataclass(frozen=True)
class Task:
    """One contender's job."""

    name: str
    model: str
    data: str
    device: str
    steps: int  # of a turn
    max_steps: int | None  # of all turns; None: the epochs that the preset trains, as the time to an NLL is taken
    shape: tuple[int, int] | None = None  # layers and hidden size of a base with random weights, in place of the model's
    memory: int | None = None  # bytes of the GPU that the process may take

    @property
    def ours(self) -> bool:
        return self.name.startswith(("lite", "static", "lora", "paper-irm"))

    @property
    def to_nll(self) -> bool:
        """Whether the held-out NLL is measured after each turn."""
        return self.max_steps is None


def parse_shape(text: str) -> tuple[int, int]:
    """'llama-2-7b' or LAYERSxHIDDEN -> (L, H). Raises InputError."""
    if text == "llama-2-7b":
        return 32, 4096
    layers, _, hidden_size = text.partition("x")
    if not (layers.isdecimal() and hidden_size.isdecimal() and int(layers) > 0 and int(hidden_size) > 0):
        raise InputError(f"{text!r} is no shape", "give llama-2-7b or LAYERSxHIDDEN, as 4x256")
    if int(hidden_size) % (128 if int(hidden_size) >= 1024 else 64):
        raise InputError(f"a hidden size of {hidden_size} does not divide into heads", "give a multiple of 64, from 1024 on of 128")
    return int(layers), int(hidden_size)
