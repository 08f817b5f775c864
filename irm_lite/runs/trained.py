"""A run that has an IRM: opened from its directory, or returned by the training that made it."""

import dataclasses
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irm_lite.base.fingerprint import Fingerprint, Match
from irm_lite.base.load import ALL_GPUS, Base, load_base, load_tokenizer, locate
from irm_lite.base.presets import read_chat_template
from irm_lite.config import TrainConfig
from irm_lite.core.errors import DataError
from irm_lite.core.machine.device import available, probe
from irm_lite.data.dataset import Dataset, load_dataset
from irm_lite.data.encoding import Sample, at_time, encode_all
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.irm import IRM
from irm_lite.steering.irm_files import load_irm

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TrainedRun:
    """`.config`, `.irm` and `.fingerprint` are there at once; `.base` and `.dataset` are loaded at their first use."""

    def __init__(self, directory: RunDirectory, config: TrainConfig, irm: IRM, fingerprint: Fingerprint) -> None:
        self.directory = directory
        self.config = config
        self.irm = irm.requires_grad_(False).eval()
        self.irm.made_on = fingerprint
        self.fingerprint = fingerprint
        self.matches: list[Match] = []  # one for each model that the IRM was put into

    def match(self, model: Fingerprint, name: str) -> Match:
        """How well the IRM fits this model, called `name`. Raises VectorError where it does not fit at all."""
        return model.match(self.fingerprint, f"the run {self.directory.path}", name)

    @cached_property
    def base(self) -> Base:
        """The frozen base, with the IRM moved to its device. Raises VectorError where its shape has changed since."""
        config = self.config
        if not available(probe(), config.device):  # trained on another machine
            config = dataclasses.replace(config, device="auto", dtype="auto")
        base = base_at(load_base_of(config), self.directory.rendered_at())
        self.matches.append(self.match(base.fingerprint, base.name))
        self.irm.to(base.plan.device)
        return base

    def share_base(self, other: "TrainedRun") -> None:
        """Use the base of another run, if that has loaded it and it is the one that this run would load, in the same way."""
        same = base_settings(self.config) == base_settings(other.config)
        alike = self.fingerprint.quantisation == other.fingerprint.quantisation and self.fingerprint.is_of(other.fingerprint)
        if same and alike and "base" in other.__dict__:
            self.irm.to(other.base.plan.device)
            self.__dict__["base"] = base_at(other.base, self.directory.rendered_at())

    @property
    def gguf_path(self) -> Path | None:
        """The .gguf that the base was loaded from, which llama.cpp can run as it is; None where it was a folder."""
        return locate(self.config.model, self.config.download).gguf

    def allows_disagreement(self, gguf: Path) -> bool:
        """Whether the user has trained on this very file though llama.cpp makes another model of it."""
        own = self.gguf_path if self.config.allow_disagreement else None
        return own is not None and own.resolve() == gguf.resolve()

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The base's tokenizer, loaded without its weights."""
        if "base" in self.__dict__:
            return self.base.tokenizer
        return at_time(load_tokenizer(**_tokenizer_options(self.config)), self.directory.rendered_at())

    @cached_property
    def dataset(self) -> Dataset:
        return load_dataset(self.config.data, self.config.answer_column, self.config.download)

    @cached_property
    def held_out(self) -> list[Sample]:
        """The test samples (validation's where there is no test split), encoded."""
        examples = self.dataset.test or self.dataset.validation
        samples, _ = encode_all(self.tokenizer, examples, self.config.max_length)
        if not samples:
            limit = self.config.max_length
            raise DataError(
                f"none of the {len(examples)} held-out samples of {self.config.data} fits into {limit} tokens", "raise --max-length"
            )
        return samples

    @property
    def held_out_questions(self) -> list[str]:
        """The questions of the held-out examples."""
        examples = self.dataset.test or self.dataset.validation
        return [example.question for example in examples if example.question]


def load_run(path: Path | str) -> TrainedRun:
    """Open a run directory that holds an IRM. Raises RunError where it is not a run or has no IRM yet.

    >>> run = load_run("runs/anger")
    >>> run.irm.kind, run.irm.site, run.config.data
    ('lite', 'block', 'anger')
    >>> run.base.model.device == next(run.irm.parameters()).device  # .base is loaded when it is first asked for
    True
    """
    directory = RunDirectory(path)
    return TrainedRun(directory, directory.config(), load_irm(directory.path), directory.fingerprint())


_BASE_SETTINGS = ("model", "quant", "double_quant", "device", "device_map", "dtype", "chat_template")


def base_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide which base is loaded, and how: runs in which they are equal can share one."""
    return {name: getattr(config, name) for name in _BASE_SETTINGS}


def load_base_of(config: TrainConfig) -> Base:
    """Load the base that a configuration names."""
    return load_base(
        quant=config.quant,
        double_quant=config.double_quant,
        device=ALL_GPUS if config.device_map == "auto" and config.device in ("auto", "cuda") else config.device,
        dtype=config.dtype,
        **_tokenizer_options(config),
    )


def base_at(base: Base, at: datetime | None) -> Base:
    """A base whose chat template renders at the local time `at`; itself where that changes nothing."""
    tokenizer = at_time(base.tokenizer, at)
    return base if tokenizer is base.tokenizer else dataclasses.replace(base, tokenizer=tokenizer)


def _tokenizer_options(config: TrainConfig) -> dict[str, Any]:
    template = read_chat_template(config.chat_template) if config.chat_template else None
    return {"name": config.model, "chat_template": template, "download": config.download}


def neutral_samples(run: "TrainedRun") -> list[Sample]:
    """The shipped neutral answers to held-out questions, encoded: on them a steered model should differ little from its base."""
    return encode_all(run.tokenizer, load_dataset("neutral").test, run.config.max_length)[0]
