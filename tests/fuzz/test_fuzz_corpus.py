"""Each reader on the inputs that fuzzing has kept, and on sound ones with a few edits: it returns, or raises irm-lite's own."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutations import damaged
from fuzz.readers import CORPUS, READERS, corpus, join, read, split

each_reader = pytest.mark.parametrize("name", sorted(READERS))


def test_each_reader_has_a_corpus_and_each_corpus_a_reader() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(READERS)


@each_reader
def test_what_fuzzing_has_kept_is_read_or_refused(name: str) -> None:
    for data in corpus(name):
        read(name, data)


@each_reader
def test_the_seeds_themselves_are_accepted(name: str) -> None:
    for path in sorted((CORPUS / name).glob("seed-*")):
        READERS[name](path.read_bytes())


@pytest.mark.slow
@each_reader
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_few_edits_are_read_or_refused(name: str, data: st.DataObject) -> None:
    read(name, data.draw(st.sampled_from(corpus(name)).flatmap(damaged)))


@given(st.lists(st.binary(max_size=50), min_size=2, max_size=4))
def test_framed_files_come_apart_as_they_were_put_together(parts: list[bytes]) -> None:
    assert split(join(parts), len(parts)) == parts
