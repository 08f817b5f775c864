"""One llama.cpp context: a control vector or a dynamic IRM at work, logits, streamed text."""

import ctypes
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from irm_lite.base.fingerprint import UNQUANTISED
from irm_lite.core.errors import InputError, LlamaCppError
from irm_lite.core.machine.llamacpp_log import complaint, forget_complaints
from irm_lite.core.types import FloatArray
from irm_lite.data.dataset import Message
from irm_lite.llamacpp.model import Model
from irm_lite.llamacpp.sampling import TOP_P, Sampling, sampler_chain
from irm_lite.llamacpp.threads import Threads
from irm_lite.steering.control_vector import ControlVector

if TYPE_CHECKING:
    from irm_lite.llamacpp.adapters import LoadedAdapter
    from irm_lite.llamacpp.dynamic import DynamicIRM
    from irm_lite.steering.irm import IRM

Placed = tuple[int, int, int]  # a token, its position, its sequence


class Runtime:
    """A context on a model file, or on a `Model` that several contexts share. Close it, or use it as a context manager.

    `dynamic` is the IRM at work in it, or None: its strength, layers and on/off may change between calls.
    """

    def __init__(
        self,
        gguf: Path | str | Model,
        *,
        irm: "IRM | None" = None,
        n_ctx: int = 4096,
        n_batch: int = 512,
        n_gpu_layers: int = -1,
        chat_template: str | None = None,
        n_sequences: int = 1,
    ) -> None:
        """`n_batch` is the micro-batch: this many tokens go through the graph at once. `n_sequences` texts share the context
        (parallel.py); the other calls know one alone.

        Raises BaseModelError or InputError where the file is damaged, split, no model, or the IRM does not fit it.
        """
        if not 8 <= n_ctx <= 1 << 24:
            raise InputError(f"a context of {n_ctx} tokens makes no sense", "give --context between 8 and 16777216")
        self._threads = Threads()
        self._owns_model = not isinstance(gguf, Model)
        self.model = gguf if isinstance(gguf, Model) else Model(gguf, n_gpu_layers=n_gpu_layers, chat_template=chat_template)
        import llama_cpp

        self._context: Any = None
        try:
            parameters = llama_cpp.llama_context_default_params()
            parameters.n_ctx = min(n_ctx, self.model.trained_context)
            parameters.n_batch = parameters.n_ubatch = min(n_batch, parameters.n_ctx)
            parameters.n_seq_max = n_sequences
            parameters.kv_unified = True  # one micro-batch, whatever sequences are in it
            parameters.n_threads = parameters.n_threads_batch = self._threads.all
            self.dynamic: DynamicIRM | None = None
            callback = self._callback(irm)
            if callback is not None:
                parameters.cb_eval = callback
            forget_complaints()
            self._context = llama_cpp.llama_init_from_model(self.model.handle, parameters)
            if not self._context:
                raise LlamaCppError(f"llama.cpp cannot make a context of {n_ctx} tokens ({complaint()})", "ask for a smaller one")
        except BaseException:
            self.close()
            raise
        self.n_ctx = int(llama_cpp.llama_n_ctx(self._context))
        self.n_batch = int(parameters.n_batch)
        self.n_sequences = n_sequences
        # Recurrent blocks take sequences of one length: llama.cpp runs its graph for several unequal ones more than once, in the
        # end for single tokens, which a hybrid's attention reads as such.
        hybrid = bool(llama_cpp.llama_model_is_hybrid(self.model.handle))
        recurrent = hybrid or bool(llama_cpp.llama_model_is_recurrent(self.model.handle))
        self._splits = n_sequences > 1 and hybrid
        self.takes_unequal = not (recurrent and self.dynamic is not None)  # sequences in a micro-batch: an IRM acts in one graph
        self._batch: Any = llama_cpp.llama_batch_init(self.n_batch, 0, 1)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._n_past = 0
        self._uses = 0  # of the cache: a text that was being written when another use began cannot go on

    def _callback(self, irm: "IRM | None") -> Any:
        """What ggml asks about each node of its graph: the IRM at work; None: nothing."""
        if irm is None:
            return None
        from irm_lite.llamacpp import dynamic  # torch, which plain generation does not wait for

        of = self.model.fingerprint
        self.dynamic = dynamic.DynamicIRM(irm, of.n_layers, of.hidden_size, of.architecture, of.quantisation not in UNQUANTISED)
        return self.dynamic.callback

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the context, and the model if it was loaded for this context."""
        import llama_cpp

        if self._context:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._context)
            self._context = None
            self._uses += 1
        if self._owns_model:
            self.model.close()

    def set_vector(self, vector: ControlVector | None, scale: float = 1.0, layers: Iterable[int] | None = None) -> str | None:
        """Steer all that follows with `scale` times the vector, at these blocks only if given; None: not at all.

        Everything computed before is forgotten: a cache made at another strength is never reused. Raises VectorError
        where the vector does not fit. Returns a warning where it fits but was made on other weights.
        """
        import llama_cpp

        n_layers = self.model.n_layers
        rows = np.zeros((n_layers, self.model.hidden_size), dtype=np.float32)
        warning = None
        if vector is not None:
            warning = vector.require_fit(self.model.fingerprint, self.model.path.name).warning
            chosen = vector if layers is None else vector.select(layers)
            rows = chosen.as_array(n_layers) * np.float32(scale)
        # Row 0 is left out: the buffer starts at block 1. It is always sent whole, since what a shorter one does not
        # reach would keep the vector before it.
        buffer = np.ascontiguousarray(rows[1:])
        pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        if llama_cpp.llama_set_adapter_cvec(self._context, pointer, buffer.size, rows.shape[1], 1, n_layers - 1) != 0:
            raise LlamaCppError("llama.cpp refused the control vector")
        self._forget()
        return warning

    def set_adapters(self, adapters: "Sequence[tuple[LoadedAdapter, float]]") -> None:
        """Let these adapters of the model work in all that follows, each at its scale, beside a vector; of none: none.

        Everything computed before is forgotten, as in `set_vector`.
        """
        import llama_cpp

        count = len(adapters)
        handles = (llama_cpp.llama_adapter_lora_p_ctypes * count)(
            *(ctypes.cast(adapter.handle, llama_cpp.llama_adapter_lora_p_ctypes) for adapter, _ in adapters)
        )
        scales = (ctypes.c_float * count)(*(scale for _, scale in adapters))
        if llama_cpp.llama_set_adapters_lora(self._context, handles, count, scales) != 0:
            raise LlamaCppError("llama.cpp refused the adapters")
        self._forget()

    def logits(self, ids: Sequence[int], positions: Sequence[int] | None = None) -> FloatArray:
        """Logits (A, V), float32, after the tokens at these positions (default: all of the T).

        Raises InputError where the tokens exceed the context.
        """
        if len(ids) > self.n_ctx:
            raise InputError(f"{len(ids)} tokens do not fit into the context of {self.n_ctx}", "use shorter samples")
        wanted = np.zeros(len(ids), dtype=np.bool_)
        wanted[slice(None) if positions is None else list(positions)] = True
        self._forget()
        found = [
            self._decode(ids[at : at + self.n_batch], wanted[at : at + self.n_batch]) for at in range(0, len(ids), self.n_batch)
        ]
        return np.concatenate(found)

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation up to where the assistant is to speak, by the GGUF's own chat template."""
        return self.model.encode_prompt(messages)

    def generate(
        self, messages: Sequence[Message], *, max_new_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[str]:
        """Stream the assistant's next turn in pieces of text. Temperature 0 is greedy decoding."""
        prompt = self.encode_prompt(messages)
        tokens = self.generate_tokens(prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        return self.model.decode_pieces(tokens)

    def generate_tokens(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
        top_p: float = TOP_P,
        repeat_penalty: float = 1.0,
    ) -> Iterator[int]:
        """Token ids that follow the prompt's, as they are sampled; whoever reads them decides when the turn is over.

        `repeat_penalty` r holds back tokens of the prompt and of what was sampled (Keskar et al. 2019, arXiv 1909.05858):
        their logits are divided by r, or multiplied where negative.
        """
        sampling = Sampling(temperature, seed, top_p, repeat_penalty)
        steps = self.generate_steps(prompt, max_new_tokens, sampling)
        return (token for token in steps if token is not None)

    def generate_steps(self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling, kept: int = 0) -> Iterator[int | None]:
        """The same, with None after each micro-batch of the prompt that others follow, so that whoever reads them can do other
        things between.

        The prompt's first `kept` tokens are not read again: the caller knows that the cache begins with them, from the call
        before, as this context is steered now. Raises InputError where something is out of range.
        """
        if max_new_tokens < 1 or not 0 <= sampling.temperature < math.inf or not 0 <= sampling.seed < 2**32:
            raise InputError(
                f"max_new_tokens {max_new_tokens}, temperature {sampling.temperature} or seed {sampling.seed} is out of range",
                "give at least 1 token, a temperature of 0 or more, a seed from 0 to 4294967295",
            )
        if not 0 < sampling.top_p <= 1 or not 0 < sampling.repeat_penalty < math.inf:
            raise InputError(
                f"top_p {sampling.top_p} or repeat_penalty {sampling.repeat_penalty} is out of range",
                "give a top_p up to 1, both above 0",
            )
        room = self.n_ctx - len(prompt)
        if room < 1:
            raise InputError(
                f"the prompt of {len(prompt)} tokens fills the context of {self.n_ctx}", "shorten it or raise --context"
            )
        return self._sample(prompt, sampling, min(max_new_tokens, room), kept)

    def _sample(self, prompt: Sequence[int], sampling: Sampling, most: int, kept: int) -> Iterator[int | None]:
        with sampler_chain(sampling, prompt, self.model.n_vocabulary, self.n_ctx) as sampler:
            use = self._forget(kept)
            while self._n_past < len(prompt):
                part = prompt[self._n_past : self._n_past + self.n_batch]
                wanted = np.zeros(len(part), dtype=np.bool_)
                wanted[-1] = self._n_past + len(part) == len(prompt)
                self._decode(part, wanted, keep=False)
                if not wanted[-1]:
                    yield None
                    self._require(use)
            one = np.ones(1, dtype=np.bool_)
            for number in range(1, most + 1):
                token = self.sample(sampler, -1)
                yield token
                if number < most:
                    self._require(use)
                    self._decode([token], one, keep=False)

    def _require(self, use: int) -> None:
        if use != self._uses:
            raise LlamaCppError("this context was used for something else meanwhile, or closed", "generate again")

    def _forget(self, kept: int = 0) -> int:
        """Begin with an empty cache, or with the first `kept` tokens of sequence 0; gives this use's number."""
        import llama_cpp

        if not self._context:
            raise LlamaCppError("this context is closed", "make another")
        if 0 < kept <= self._n_past and llama_cpp.llama_memory_seq_rm(self._memory, 0, kept, -1):
            self._n_past = kept
        else:  # recurrent caches cannot be cut
            llama_cpp.llama_memory_clear(self._memory, False)
            self._n_past = 0
        self._uses += 1
        return self._uses

    def begin(self, kept: int | None = None) -> None:
        """Forget all sequences, or all but one: another use of the context begins."""
        import llama_cpp

        if kept is None:
            self._forget()
            return
        llama_cpp.llama_memory_seq_keep(self._memory, kept)
        self._n_past = 0
        self._uses += 1

    def drop(self, sequence: int) -> None:
        """Forget one sequence."""
        import llama_cpp

        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def share(self, sequences: Sequence[int], source: int = 0) -> None:
        """Go on in these sequences from what another one holds."""
        import llama_cpp

        for sequence in sequences:
            llama_cpp.llama_memory_seq_cp(self._memory, source, sequence, -1, -1)

    def sample(self, chain: Any, row: int) -> int:
        """The token that a chain of samplers chooses after the batch's token of this row. Raises LlamaCppError where there are no
        numbers to choose by."""
        import llama_cpp

        logits = llama_cpp.llama_get_logits_ith(self._context, row)
        _require_numbers(math.isnan(logits[0]))  # what overflows in a block makes NaN of all of them
        return int(llama_cpp.llama_sampler_sample(chain, self._context, row))

    def nll(self, token: int, row: int) -> float:
        """Of a token after the batch's token of this row, in nats."""
        logits = self._logits(row)
        top = logits.max()
        return float(top + np.log(np.exp(logits - top).sum()) - logits[token])

    def decode(self, placed: Sequence[Placed], wanted: "np.ndarray[Any, np.dtype[np.bool_]]", keep: bool = True) -> FloatArray:
        """One micro-batch of (token, position, sequence) through the graph; the wanted rows' logits if they are to be kept."""
        import llama_cpp

        batch = self._batch
        batch.n_tokens = len(placed)
        for at, (token, position, sequence) in enumerate(placed):
            batch.token[at] = token
            batch.pos[at] = position
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = sequence
            batch.logits[at] = bool(wanted[at])
        forget_complaints()
        last = placed[-1][1] if self.n_sequences == 1 else self.n_ctx
        self._threads.choose(self._context, self._splits or len(placed) == 1, last)
        while True:
            if self.dynamic is not None:
                self.dynamic.before(wanted)
            code = llama_cpp.llama_decode(self._context, batch)
            if self.dynamic is None or self.dynamic.after():
                break
            if not all(llama_cpp.llama_memory_seq_rm(self._memory, sequence, position, -1) for _, position, sequence in placed):
                raise LlamaCppError("llama.cpp's graph changed, and this model's cache cannot be taken back", "generate again")
        if code != 0:
            stopped = f"llama.cpp stopped after {placed[0][1]} tokens (code {code}: {complaint()})"
            raise LlamaCppError(stopped, "raise --context" if code == 1 else None)
        rows = np.flatnonzero(wanted) if keep else ()
        found = np.empty((len(rows), self.model.n_vocabulary), dtype=np.float32)
        for at, row in enumerate(rows):
            found[at] = self._logits(int(row))
        _require_numbers(bool(np.isnan(found).any()))
        return found

    def _logits(self, row: int) -> FloatArray:
        """(V,) after the batch's token of this row: llama.cpp's own memory, until the next batch."""
        import llama_cpp

        pointer = llama_cpp.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(pointer, shape=(self.model.n_vocabulary,))

    def _decode(self, ids: Sequence[int], wanted: "np.ndarray[Any, np.dtype[np.bool_]]", keep: bool = True) -> FloatArray:
        """The next tokens of sequence 0, as `decode` has it."""
        found = self.decode([(token, self._n_past + at, 0) for at, token in enumerate(ids)], wanted, keep)
        self._n_past += len(ids)
        return found


def _require_numbers(lost: bool) -> None:
    if lost:
        raise LlamaCppError("the model puts out NaN: what steers it is too strong, or its file is damaged", "give a smaller scale")
