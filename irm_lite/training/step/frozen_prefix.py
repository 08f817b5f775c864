"""What the IRM cannot change: the states below the first injected layer, and layer 0's state that the IRM reads.

The model is frozen, so these are computed without gradients, once a sample, and kept over the epochs. Samples are always computed
in the same rows, whatever the order of the steps, so that a resumed training gets the same bits.
"""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irm_lite.base.architecture import block_input, decoder_layers, hidden_state, inner_decoder, list_of_blocks, text_config
from irm_lite.base.architectures import cuts
from irm_lite.base.forward import run_base
from irm_lite.base.padded import as_row
from irm_lite.base.stream import stream_of
from irm_lite.core.files.atomic import free_space
from irm_lite.core.machine import processes
from irm_lite.core.machine.available_memory import available_bytes
from irm_lite.core.machine.ran_out import what_ran_out
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import Row, pack, rows
from irm_lite.steering.irm import IRM

MEMORY_SHARE = 0.25  # of free memory: what needs more is kept in a file, which the system caches in memory


class _Seen(Exception):
    """Ends the forward as soon as it has produced all that is wanted."""


class FrozenPrefix:
    """The prefix of one base for one IRM: the blocks before `first`, which is the first that the IRM's output reaches."""

    def __init__(self, model: nn.Module, irm: IRM) -> None:
        self.model = model
        self.first = first_reached(model, irm)
        self.stream = stream_of(model)
        self.reads = irm.reads == "h0"  # whether layer 0's state is wanted
        self._rows: dict[int, tuple[int, int]] = {}  # id of a sample -> its first row in the store, and the one after its last
        self._together: dict[int, list[Sample]] = {}  # id of a sample -> those that are run with it
        self._stored: dict[str, Tensor] = {}
        self._known: set[int] = set()

    def keep(self, samples: Sequence[Sample], folder: Path, spare: int = 0) -> str:
        """From now on keep what is computed for these samples, which must stay alive. Returns where: "memory", "disk" or "no room".

        On disk it is a file in `folder` whose name is removed at once: nothing is left behind, whatever ends the training. `spare`:
        bytes that other files there will need.
        """
        ends = torch.tensor([len(sample.ids) for sample in samples]).cumsum(0).tolist()
        model: Any = self.model
        shape, dtype = (ends[-1], int(text_config(model).hidden_size)), model.dtype
        names = [name for name, read in (("stream", self.first > 0), ("h0", self.reads)) if read]
        size = shape[0] * shape[1] * dtype.itemsize
        if not names:
            return "memory"
        wanted = len(names) * size * processes.on_this_machine()
        if wanted <= MEMORY_SHARE * available_bytes():
            make, where = partial(torch.empty, shape, dtype=dtype), "memory"
        elif wanted <= (free_space(folder) - spare) / 2:
            make, where = partial(_mapped, folder, shape, dtype), "disk"
        else:
            return "no room"
        try:
            self._stored = {name: make() for name in names}
        except (OSError, RuntimeError) as error:  # a quota, a disk that has filled up meanwhile, a limit on the address space
            if not isinstance(error, OSError) and what_ran_out(error) != "memory":
                raise
            return "no room"
        self._together = {id(sample): group for group in rows(samples) for sample in group}
        self._rows = {id(sample): (end - len(sample.ids), end) for sample, end in zip(samples, ends, strict=True)}
        return where

    def states(self, samples: Sequence[Sample], row: Row) -> dict[str, Tensor]:
        """For samples and their packed row: "stream", what block `first` reads, where that is not 0, and "h0", layer 0's state
        after attention, where the IRM reads it. Each (1, T, H), without a gradient."""
        if not all(id(sample) in self._rows for sample in samples):
            return self._run(row)
        for sample in samples:
            if id(sample) not in self._known:
                group = self._together[id(sample)]
                self._write(group, self._run(pack(group)))
        device, shared = next(self.model.parameters()).device, int(row["shared"])
        places = [slice(*self._rows[id(sample)]) for sample in samples]
        places = [slice(place.start + (shared if number else 0), place.stop) for number, place in enumerate(places)]
        return {name: torch.cat([stored[place] for place in places])[None].to(device) for name, stored in self._stored.items()}

    def _write(self, samples: Sequence[Sample], found: dict[str, Tensor]) -> None:
        lengths = [len(sample.ids) for sample in samples]
        for name, states in found.items():
            for sample, part in zip(samples, torch.split(states[0], lengths), strict=True):
                self._stored[name][slice(*self._rows[id(sample)])] = part.to("cpu")
        self._known.update(id(sample) for sample in samples)

    @torch.no_grad()
    def _run(self, row: Row) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}
        blocks: Any = decoder_layers(self.model)

        def enter(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
            seen["entered"] = block_input(args, kwargs)

        def attended(_module: nn.Module, _args: object, output: object) -> None:
            factor = self.stream.multiplier
            added = hidden_state(output) if factor == 1 else hidden_state(output) * factor
            seen["h0"] = as_row(self.model, seen["entered"] + added)
            if self.first == 0:
                raise _Seen

        def through(_module: nn.Module, _args: object, output: object) -> None:
            seen["h0"] = as_row(self.model, hidden_state(output))
            if self.first == 0:
                raise _Seen

        def left(_module: nn.Module, _args: object, output: object) -> None:
            seen["stream"] = hidden_state(output)
            raise _Seen

        handles = []
        if self.reads and self.stream.attn:
            handles += [
                blocks[0].register_forward_pre_hook(enter, with_kwargs=True),
                self.stream.attention(blocks[0]).register_forward_hook(attended),
            ]
        elif self.reads:
            handles.append(blocks[0].register_forward_hook(through))
        if self.first > 0:
            handles.append(blocks[self.first - 1].register_forward_hook(left))
        if not handles:
            return {}
        try:
            run_base(self.model, row)
        except _Seen:
            pass
        finally:
            for handle in handles:
                handle.remove()
        seen.pop("entered", None)
        return seen


def first_reached(model: nn.Module, irm: IRM) -> int:
    """The first block that reads anything of the IRM; 0 also for models whose blocks cannot be left out."""
    config = text_config(model)
    if not cuts(str(config.model_type), getattr(config, "layer_types", None)):
        return 0
    return irm.layers[0] + (irm.site == "block" and irm.reads != "maps")


@contextmanager
def blocks_from(model: nn.Module, first: int) -> Iterator[None]:
    """Within: the model's decoder has only its blocks from `first` on."""
    inner, name = inner_decoder(model), list_of_blocks(model)
    whole = decoder_layers(model)
    setattr(inner, name, whole[first:])
    try:
        yield
    finally:
        setattr(inner, name, whole)


def _mapped(folder: Path, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """A tensor of this shape in a new file, which is unlinked at once. Raises OSError where the disk has no room for it,
    RuntimeError where it cannot be mapped."""
    path = folder / f".prefix.{secrets.token_hex(4)}"  # a name that RunDirectory.remove_left_overs knows
    try:
        with path.open("xb") as file:
            if hasattr(os, "posix_fallocate"):  # else a disk that fills later would kill the process at a write (SIGBUS)
                os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1] * dtype.itemsize)
        flat = torch.from_file(str(path), shared=True, size=shape[0] * shape[1], dtype=dtype)
    finally:
        path.unlink(missing_ok=True)
    return flat.view(shape)
