"""What this process holds in memory beside the base's and the IRM's weights: Python, libraries, and what else its user has in it.

torch's builds differ by half a gigabyte and more, so it is measured as each training starts.
"""

from torch import Tensor, nn

from irm_lite.core.machine.malloc import give_back
from irm_lite.core.machine.memory import held_bytes


def measured_share(*modules: nn.Module) -> int:
    """Bytes that are resident beside these modules' weights, once what is free in the heap has gone back to the system."""
    give_back()
    return max(held_bytes("cpu") - sum(map(weight_bytes, modules)), 0)


def weight_bytes(module: nn.Module) -> int:
    """Bytes of a module's weights and buffers on the CPU, with the constants of those that are quantised."""
    held: dict[int, int] = {}

    def count(tensor: Tensor | None) -> None:
        if tensor is not None and tensor.device.type == "cpu":
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()

    for weight in (*module.parameters(), *module.buffers()):
        count(weight.data)
        state = getattr(weight, "quant_state", None)
        for each in (state, getattr(state, "state2", None)):
            count(getattr(each, "absmax", None))
    return sum(held.values())
