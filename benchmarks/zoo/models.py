"""A tiny random model of an architecture as a Hugging Face folder, with a byte-level BPE tokenizer and a chat template."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from irm_lite.data.dataset import load_dataset
from zoo.configs import SIZES, VOCABULARY, Tiny

_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def tiny_model(tiny: Tiny, seed: int = 0) -> Any:
    """In float32, with norm gains and biases that are not those of the start."""
    torch.manual_seed(seed)
    config = getattr(transformers, tiny.config)(**{**SIZES, **tiny.sizes})
    config.architectures = None
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif name.endswith(("bias", "sinks")):
                parameter.normal_(0, 0.1)
    return model


def write_folder(tiny: Tiny, folder: Path) -> Path:
    """The model in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_model(tiny).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **tiny.on_the_hub}))
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """The zoo's tokenizer, byte-level BPE split as GPT-2's, beside a model."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>", "<|endoftext|>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator([each.answer for each in load_dataset("neutral").train[:200]], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
