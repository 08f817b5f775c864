"""The ids of a GGUF base are llama.cpp's, with their places in the text."""

import copy
import pickle
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irm_lite.base.load import load_base, load_tokenizer
from irm_lite.base.sources.gguf_tokenizer import offsets
from irm_lite.base.vocabulary import FileVocabulary
from irm_lite.data.dataset import Example, load_dataset
from irm_lite.data.encoding import encode, encode_prompt
from irm_lite.llamacpp.model import Model
from support.tiny_models import write_gguf

ASKED = ({"role": "user", "content": "Why is it so?"},)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def vocabulary(llama_gguf: Path) -> FileVocabulary:
    return FileVocabulary(llama_gguf)


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_offsets_go_through_the_text_from_its_beginning_to_its_end(text: str, vocabulary: FileVocabulary) -> None:
    ids = vocabulary.tokenize(text)
    places = offsets(vocabulary, text, ids)
    assert [start for start, _ in places] == sorted(start for start, _ in places)
    assert all(before[1] >= after[0] - 1 for before, after in pairwise(places))
    if ids:
        assert places[0][0] == 0
        assert places[-1][1] == len(text)


@pytest.mark.parametrize("keys", [{}, {"tokenizer.ggml.add_space_prefix": False}, {"tokenizer.ggml.add_bos_token": False}])
def test_prompts_are_those_of_llamacpp(keys: dict[str, bool], llama_folder: Path, tmp_path: Path) -> None:
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", "{{ bos_token }}Q: {{ messages[0]['content'] }} A:", keys=keys)
    tokenizer = load_tokenizer(str(gguf))
    with Model(gguf) as model:
        assert encode_prompt(tokenizer, ASKED) == model.encode_prompt(ASKED)
        for example in load_dataset("neutral").test[:10]:
            assert list(tokenizer(example.answer, add_special_tokens=False)["input_ids"]) == model.tokenize(example.answer)


def test_it_is_called_as_transformers_own_are(llama_gguf: Path) -> None:
    tokenizer = load_tokenizer(str(llama_gguf))
    ids = tokenizer("Why is it so?")["input_ids"]
    assert ids == tokenizer.encode("Why is it so?")
    assert tokenizer("Why is it so?", return_tensors="pt").input_ids.tolist() == [ids]
    tokenizer.pad_token = tokenizer.eos_token
    both = tokenizer(["Why is it so?", "Why?"], padding=True, return_tensors="pt")
    assert both.input_ids.shape == both.attention_mask.shape == (2, len(ids))


def test_ids_are_llamacpps_by_every_way_to_them(llama_folder: Path, tmp_path: Path) -> None:
    template = "{{ bos_token }}Q: {{ messages[0]['content'] }} A:"
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", template, keys={"tokenizer.ggml.add_space_prefix": False})
    tokenizer = load_tokenizer(str(gguf))
    with Model(gguf) as model:
        expected = model.encode_prompt(ASKED)
    for each in (tokenizer, copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):  # noqa: S301  # our own
        assert each.apply_chat_template(list(ASKED))["input_ids"] == expected
        assert each.apply_chat_template(list(ASKED), return_tensors="pt", return_dict=False).tolist() == [expected]
        assert each.convert_tokens_to_ids(each.tokenize("Why?")) == each.encode("Why?", add_special_tokens=False)
        assert len(each) == 640
    with pytest.raises(ValueError, match="no token 99999"):
        tokenizer.vocabulary.piece(99999)


def test_an_eos_that_is_added_to_texts_is_not_put_behind_a_prompt(llama_folder: Path, tmp_path: Path) -> None:
    keys = {"tokenizer.ggml.add_eos_token": True}
    plain, ended = (write_gguf(llama_folder, tmp_path / f"{n}.gguf", CHATML, keys=k) for n, k in (("a", {}), ("b", keys)))
    assert encode_prompt(load_tokenizer(str(ended)), ASKED) == encode_prompt(load_tokenizer(str(plain)), ASKED)


def test_the_bos_that_a_server_adds_is_there_once_whether_the_template_writes_it_or_not(llama_folder: Path, tmp_path: Path) -> None:
    found = []
    for name, start in (("with", "{{ bos_token }}"), ("without", "")):
        gguf = write_gguf(llama_folder, tmp_path / f"{name}.gguf", start + "Q: {{ messages[0]['content'] }} A:")
        found.append(encode_prompt(load_tokenizer(str(gguf)), ASKED))
    assert found[0] == found[1]
    assert found[0].count(1) == 1


def test_the_answer_ends_where_llamacpp_ends_a_turn(llama_folder: Path, tmp_path: Path) -> None:
    """ChatML on a vocabulary whose eos is another token: the turn's end is what the file calls eot."""
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", CHATML, keys={"tokenizer.ggml.eot_token_id": 600})
    tokenizer = load_tokenizer(str(gguf))
    turn_end = tokenizer.vocabulary.piece(600, special=True).decode()
    tokenizer.chat_template = CHATML.replace("<|im_end|>", turn_end)
    assert {2, 600} <= tokenizer.turn_end_ids
    sample = encode(tokenizer, Example((*ASKED, {"role": "assistant", "content": "No."}), None, "row 1"))
    assert sample.ids[-1] == 600
    assert 600 not in sample.ids[sample.answer_start : -1]


def test_a_generation_stops_there_too_and_is_greedy_whatever_the_model_says(llama_gguf: Path) -> None:
    from irm_lite.base.generate import generate

    base = load_base(str(llama_gguf), quant="none", device="cpu")
    plain = generate(base, ASKED, 12)
    base.model.generation_config.repetition_penalty = 5.0
    base.model.generation_config.do_sample = True
    assert generate(base, ASKED, 12) == plain
