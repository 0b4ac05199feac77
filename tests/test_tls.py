# TLSEngine: whatever ciphertext comes, the plaintext is what the client said, as far as it came, and nothing else.
from __future__ import annotations

import ssl

from hypothesis import given
from hypothesis import strategies as st
from tls_support import NAME, client_context, server_context

from trio_smtp._wire.tls import TLSEngine


class Client:
    """The other end, in memory."""

    def __init__(self, version: ssl.TLSVersion) -> None:
        context = client_context()
        context.minimum_version = context.maximum_version = version
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=NAME)

    def do_handshake_with(self, engine: TLSEngine) -> None:
        ready = done = False
        while not (ready and done):
            try:
                self._object.do_handshake()
                ready = True
            except ssl.SSLWantReadError:
                pass
            if not done:
                done = engine.do_handshake(self._outgoing.read())
            self._incoming.write(engine.data_to_send())

    def say(self, text: bytes) -> bytes:
        self._object.write(text)
        return self._outgoing.read()

    def say_goodbye(self) -> bytes:
        try:
            self._object.unwrap()
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()

    def hear(self, wire: bytes) -> bytes:
        self._incoming.write(wire)
        return self._object.read(65536)


VERSIONS = st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
TEXTS = st.lists(st.binary(min_size=1, max_size=100) | st.sampled_from([b"x" * 16384, b"y" * 40000]), max_size=5)


@given(
    version=VERSIONS,
    texts=TEXTS,
    goodbye=st.booleans(),
    behind=st.binary(max_size=40),
    flipped=st.none() | st.integers(min_value=0),
    cuts=st.lists(st.integers(min_value=1, max_value=20000), max_size=8),
)
def test_what_comes_out_is_what_was_said(version, texts, goodbye, behind, flipped, cuts):
    engine, client = TLSEngine(server_context()), Client(version)
    client.do_handshake_with(engine)
    said = b"".join(texts)
    wire = bytearray(b"".join(map(client.say, texts)) + (client.say_goodbye() if goodbye else b""))
    if flipped is not None and wire:
        wire[flipped % len(wire)] ^= 0x55
    whole = bytes(wire) + behind
    pieces = []
    for cut in [*cuts, len(whole)]:
        pieces.append(whole[:cut])
        whole = whole[cut:]
    heard = b""
    is_damaged = False
    for piece in filter(None, pieces):
        if engine.peer_has_closed:
            break
        try:
            heard += engine.decrypt(piece)
        except ssl.SSLError:
            is_damaged = True
            break
    assert said.startswith(heard)
    if flipped is None and not behind:
        assert heard == said
        assert engine.peer_has_closed == goodbye
        assert not is_damaged
    if goodbye and flipped is None:
        assert engine.peer_has_closed


@given(version=VERSIONS, texts=TEXTS)
def test_what_was_said_here_is_heard_there(version, texts):
    engine, client = TLSEngine(server_context()), Client(version)
    client.do_handshake_with(engine)
    for text in texts:
        wire = engine.encrypt(text)
        heard = b""
        while len(heard) < len(text):
            heard += client.hear(wire)
            wire = b""
        assert heard == text
