"""What injector and agent say is read as it was said; what is none of it is refused as such."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from joulepath_injector.words import AgentWord, Answer, Came, Done, InjectorWord, Left, Runtime, decode, encode

TEXTS = st.dictionaries(st.text(), st.text())
WORDS = [st.builds(Came, labels=TEXTS), *map(st.from_type, (Left, Done, Runtime, Answer))]


@given(st.one_of(*WORDS))
def test_what_is_said_is_read_alike(word: InjectorWord | AgentWord) -> None:
    assert decode(encode(word)) == word


@given(st.binary(max_size=200) | st.builds(lambda tail: b'{"word": "Answer", "uid": "x", ' + tail, st.binary()))
def test_what_is_no_word_is_refused_as_such(packet: bytes) -> None:
    try:
        word = decode(packet)
    except ValueError:
        return
    assert decode(encode(word)) == word
