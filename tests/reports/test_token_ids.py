"""Texts that became other tokens in the server than in the training, and nobody said so."""

import json
from pathlib import Path
from typing import Any

import pytest

from irm_lite.base.load import load_tokenizer
from irm_lite.base.presets import presets
from irm_lite.cli.main import run as irm_lite
from irm_lite.config import TrainConfig
from irm_lite.core.errors import BaseModelError
from irm_lite.data.dataset import Example, load_dataset
from irm_lite.data.encoding import encode, encode_prompt
from irm_lite.llamacpp.model import Model
from irm_lite.llamacpp.prompts import check_prompts
from irm_lite.runs.trained import load_run
from irm_lite.training import train as training
from irm_lite.vectors.export import export_vector
from support.tiny_models import write_gguf

LLAMA_2 = presets()["llama-2-7b-chat"].chat_template or ""
BARE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
EXAMPLES = load_dataset("joy").test
UNPREFIXED = {"tokenizer.ggml.add_space_prefix": False}  # as transformers tokenises the folder: no blank behind <s>


def test_the_same_file_is_not_compared_and_says_nothing(llama_gguf: Path) -> None:
    tokenizer = load_tokenizer(str(llama_gguf))
    assert check_prompts(tokenizer, 640, llama_gguf, EXAMPLES).warnings == []


def test_a_blank_behind_a_special_token_is_told(llama_folder: Path, llama_gguf: Path, tmp_path: Path) -> None:
    """A Llama 2 folder's tokenizer puts no blank behind <s>, llama.cpp does: every prompt differed by a token."""
    tokenizer = load_tokenizer(str(llama_folder))
    with Model(llama_gguf) as model:  # llama.cpp itself
        other = sum(encode_prompt(tokenizer, each.messages[:-1]) != model.encode_prompt(each.messages[:-1]) for each in EXAMPLES)
    told = check_prompts(tokenizer, 640, llama_gguf, EXAMPLES)
    assert other == len(EXAMPLES)
    assert told.token_ids is not None
    assert f"llama.cpp tokenises {other} of {other} samples otherwise" in told.token_ids
    assert "at '<s> [INS" in told.token_ids
    assert "['<0x5B>'" in told.token_ids
    assert "['▁', '<0x5B>'" in told.token_ids
    same = write_gguf(llama_folder, tmp_path / "same.gguf", LLAMA_2, keys=UNPREFIXED)
    assert check_prompts(tokenizer, 640, same, EXAMPLES).warnings == []


def test_a_few_samples_among_many_are_counted(llama_folder: Path, tmp_path: Path) -> None:
    """A tokenizer that differs in rare texts alone: runs of digits in one vocabulary, tabs in another."""
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", LLAMA_2, keys={**UNPREFIXED, "tokenizer.ggml.eot_token_id": 5})
    tokenizer = load_tokenizer(str(llama_folder))
    odd = Example(({"role": "user", "content": "Why?"}, {"role": "assistant", "content": "A byte: \x02."}), None, "row 9")
    assert tokenizer.convert_ids_to_tokens(5) == "<0x02>"
    told = check_prompts(tokenizer, 640, gguf, [*EXAMPLES, odd]).token_ids
    assert told is not None
    assert f"tokenises 1 of {len(EXAMPLES) + 1} samples otherwise than they were trained: row 9 has a token at which" in told


def test_a_token_that_the_file_calls_user_defined_is_told(llama_folder: Path, tmp_path: Path) -> None:
    """Files whose added words are USER_DEFINED: llama.cpp cuts them out of every text, the folder's tokenizer does not."""
    tokenizer = load_tokenizer(str(llama_folder))
    kinds = [3 if number < 3 else 6 if number < 259 else 1 for number in range(640)]  # control, bytes, normal
    kinds[1:3], kinds[tokenizer.convert_tokens_to_ids("in")] = [3, 3], 4
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", LLAMA_2, keys={**UNPREFIXED, "tokenizer.ggml.token_type": kinds})
    told = check_prompts(tokenizer, 640, gguf, EXAMPLES).token_ids
    with Model(gguf) as model:
        whole = [tokenizer.decode(encode(tokenizer, each).ids[1:-1]) for each in EXAMPLES]
        other = sum(encode(tokenizer, each).ids[1:-1] != model.tokenize(text) for each, text in zip(EXAMPLES, whole, strict=True))
    assert 0 < other <= len(EXAMPLES)
    assert told is not None
    assert f"tokenises {other} of {len(EXAMPLES)} samples otherwise" in told


def test_a_bos_that_the_server_adds_is_told(llama_folder: Path, tmp_path: Path) -> None:
    """A folder's template writes no bos; llama-server puts one before each prompt all the same."""
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", BARE)
    told = check_prompts(load_tokenizer(str(llama_folder), chat_template=BARE), 640, gguf, EXAMPLES)
    n = len(EXAMPLES)
    assert told.token_ids == f"a.gguf: llama-server puts <s> before {n} of {n} prompts, which were trained without it"
    assert told.chat_template is None


def test_what_differs_beside_an_added_bos_is_shown(llama_folder: Path, tmp_path: Path) -> None:
    """A folder's template writes no bos, and its tokenizer has no blank where llama.cpp puts one: the bos alone was shown."""
    spaced = (
        "{% for m in messages %}</s>{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}</s>me: {% endif %}"
    )
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", spaced)
    told = check_prompts(load_tokenizer(str(llama_folder), chat_template=spaced), 640, gguf, EXAMPLES).token_ids
    n = len(EXAMPLES)
    assert told is not None
    assert f"llama-server puts <s> before {n} of {n} prompts, which were trained without it; llama.cpp tokenises {n} of {n}" in told
    assert "['<s>'" not in told.partition("in the run, ")[2]


def test_an_eos_that_the_server_puts_behind_prompts_is_told(llama_folder: Path, tmp_path: Path) -> None:
    """Files that say add_eos_token: llama-server ends each prompt with it, and the model has nothing left to say."""
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", LLAMA_2, keys={"tokenizer.ggml.add_eos_token": True})
    told = check_prompts(load_tokenizer(str(gguf)), 640, gguf, EXAMPLES)
    assert told.warnings == ["llama-server ends each prompt with </s>, as a.gguf asks; the run was trained without it"]


def test_another_template_in_the_file_is_told_with_what_differs(llama_folder: Path, llama_gguf: Path, tmp_path: Path) -> None:
    """Trained with --chat-template, served with the file's own: the vector met prompts that it had never seen."""
    told = check_prompts(load_tokenizer(str(llama_gguf), chat_template=BARE), 640, llama_gguf, EXAMPLES)
    n = len(EXAMPLES)
    assert told.chat_template is not None
    assert told.chat_template.startswith(
        f"{llama_gguf.name}'s own chat template, which llama-server uses, makes {n} of {n} prompts"
    )
    assert "'[INST] " in told.chat_template
    assert "where the run has 'user: " in told.chat_template
    respelt = LLAMA_2.replace("{%", "{%-").replace("{%--", "{%-")  # another source that renders the same is none
    assert check_prompts(load_tokenizer(str(llama_gguf), chat_template=respelt), 640, llama_gguf, EXAMPLES).warnings == []
    none = write_gguf(llama_folder, tmp_path / "none.gguf")
    told = check_prompts(load_tokenizer(str(llama_gguf)), 640, none, EXAMPLES)
    assert told.chat_template is not None
    assert told.chat_template.startswith("none.gguf has no chat template, and ChatML, which llama-server uses")


def test_the_prompt_ends_where_the_servers_does(llama_gguf: Path) -> None:
    """A prompt that ends in a blank: in training it was a part of the answer's first word, in the server a token alone."""
    tokenizer = load_tokenizer(str(llama_gguf), chat_template=BARE)
    with Model(llama_gguf, chat_template=BARE) as model:
        for example in EXAMPLES:
            sample = encode(tokenizer, example)
            assert sample.ids[: sample.answer_start] == model.encode_prompt(example.messages[:-1])
            assert tokenizer.decode(sample.ids, skip_special_tokens=True).strip().endswith(example.answer)


def quick(model: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"model": str(model), "quant": "none", "dtype": "float32", "device": "cpu", "batch_size": 4}
    return TrainConfig(**{**settings, "max_steps": 2, "irm": "static", "eval_steps": 2, "sample_tokens": 0, **changes})


@pytest.mark.slow
def test_export_and_eval_tell_of_other_prompts_and_fidelity_json_keeps_it(
    llama_folder: Path, llama_gguf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A folder trained, and its vector measured on a GGUF whose tokens are others: fidelity 1.000, not a word."""
    run = training.train(quick(llama_folder), tmp_path / "run")
    result = export_vector(run, run.directory.default_vector, gguf=llama_gguf)
    document = json.loads(run.directory.fidelity.read_text())
    assert document["prompts"]["token_ids"] == result.prompts.token_ids
    assert document["prompts"]["chat_template"] is document["prompts"]["vocabulary"] is None
    assert result.prompts.token_ids in result.warnings
    capfd.readouterr()
    assert irm_lite(["eval", str(tmp_path / "run"), "--gguf", str(llama_gguf), "--questions", "0", "--json"]) == 0
    told = capfd.readouterr()
    assert "265 of 265 samples otherwise" in " ".join(told.err.split())
    assert json.loads(told.out)["prompts"]["token_ids"] == result.prompts.token_ids
    assert (
        irm_lite(["generate", "--gguf", str(llama_gguf), "--irm", str(tmp_path / "run"), "-p", "Why?", "--max-new-tokens", "1"])
        == 0
    )
    assert "265 of 265 samples otherwise" in " ".join(capfd.readouterr().err.split())
    loaded = load_run(tmp_path / "run")
    assert "base" not in loaded.__dict__


def test_a_vocabulary_of_another_size_is_said(llama_gguf: Path) -> None:
    """Somebody exported onto a file of another size of vocabulary, and nothing said so."""
    tokenizer = load_tokenizer(str(llama_gguf), chat_template=LLAMA_2)
    other = check_prompts(_folders(tokenizer), 700, llama_gguf, EXAMPLES).vocabulary
    assert other == f"{llama_gguf.name} has a vocabulary of 640 tokens, the base one of 700: it was not made from that base"


def _folders(tokenizer: Any) -> Any:
    """The tokenizer without its file, as a folder's."""
    return tokenizer._own


def test_a_file_without_the_samples_tokens_is_refused(llama_folder: Path, llama_gguf: Path, tmp_path: Path) -> None:
    """llama.cpp stopped in mid-work at a token that the file does not have."""
    tokenizer = load_tokenizer(str(llama_folder))
    tokenizer.add_tokens(["Because"])  # number 640
    example = Example(({"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}), None, "row 1")
    with pytest.raises(BaseModelError, match=f"the samples have the token 640, and {llama_gguf.name} a vocabulary of 640"):
        check_prompts(tokenizer, 641, llama_gguf, [example])
