"""Every form that Kafka's clients give a compressed batch is unpacked, and a bomb is not."""

from __future__ import annotations

import gzip
import random
import struct
from typing import Any

import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka import codec as aiokafka_codec
from aiokafka.record.memory_records import MemoryRecords

from failsoft.workers.kafka import codecs
from failsoft.workers.kafka.chunk import Chunk
from failsoft.workers.kafka.codecs import GZIP, LZ4, SNAPPY, ZSTD, packed, plain, unpack
from failsoft.workers.kafka.unreadable import DamagedBatch
from tests.record_batches import CODECS, batch

DATA = b"".join(b'{"event_id": "e%d", "amount": %d}' % (i, random.Random(i).getrandbits(40)) for i in range(4_000))
ZEROS = bytes(codecs.MOST_UNPACKED + 1)


def _lz4(content_size: bool, linked: bool, checksum: bool) -> bytes:
    """A frame as lz4's library writes it: its blocks may refer to each other, and it may say its content's size."""
    if content_size:
        return bytes(cramjam.lz4.compress(DATA))
    compressor = cramjam.lz4.Compressor(level=1, content_checksum=checksum, block_linked=linked)
    for at in range(0, len(DATA), 10_000):
        compressor.compress(DATA[at : at + 10_000])
    return bytes(compressor.finish())


def _streamed_zstd() -> bytes:
    """A frame that does not say its content's size, as Java's stream writes it."""
    compressor = cramjam.zstd.Compressor()
    for at in range(0, len(DATA), 10_000):
        compressor.compress(DATA[at : at + 10_000])
    return bytes(compressor.finish())


@pytest.mark.parametrize(
    ("number", "packed"),
    [
        (GZIP, gzip.compress(DATA)),
        (SNAPPY, aiokafka_codec.snappy_encode(DATA)),  # blocks of 32 KiB, as Java's client
        (SNAPPY, bytes(cramjam.snappy.compress_raw(DATA))),  # one block, as librdkafka
        (LZ4, aiokafka_codec.lz4_encode(DATA)),
        (LZ4, _lz4(True, False, False)),
        *((LZ4, _lz4(False, linked, checksum)) for linked in (False, True) for checksum in (False, True)),
        (ZSTD, bytes(cramjam.zstd.compress(DATA, level=19))),
        (ZSTD, _streamed_zstd()),
    ],
)
def test_every_form_of_a_codec_is_unpacked(number: int, packed: bytes) -> None:
    """Once, and where the codec allows it, two in a row."""
    assert bytes(unpack(number, packed)) == DATA
    if number != SNAPPY:
        assert bytes(unpack(number, packed + packed)) == DATA + DATA


def test_what_is_small_when_packed_may_be_large() -> None:
    """The first buffer is too small for it, and a larger one is tried."""
    large = bytes(20_000_000)
    for number, pack in ((GZIP, cramjam.gzip), (LZ4, cramjam.lz4), (ZSTD, cramjam.zstd)):
        assert bytes(unpack(number, bytes(pack.compress(large)))) == large


@pytest.mark.parametrize(
    ("number", "packed"),
    [
        (GZIP, bytes(cramjam.gzip.compress(ZEROS))),
        (LZ4, bytes(cramjam.lz4.compress(ZEROS))),
        (ZSTD, bytes(cramjam.zstd.compress(ZEROS))),
        (SNAPPY, b"\xff\xff\xff\xff\x0f" + bytes(20)),  # claims 4 GiB
        (SNAPPY, aiokafka_codec.snappy_encode(ZEROS, xerial_blocksize=16_000_000)),
    ],
)
def test_a_bomb_is_refused(number: int, packed: bytes) -> None:
    """With the bound in the message. Nothing larger is ever asked of the memory."""
    with pytest.raises(DamagedBatch, match="its records unpack to more than 128 MiB"):
        unpack(number, packed)


@pytest.mark.parametrize("number", [GZIP, SNAPPY, LZ4, ZSTD])
def test_what_is_damaged_is_refused(number: int) -> None:
    """Cut anywhere, or empty, or of another codec. The message names the codec."""
    raw = batch(0, range(200), codec=number)[61:]
    for bad in (b"", raw[:-1], raw[: len(raw) // 2], b"garbage" * 9):
        with pytest.raises(DamagedBatch, match=f"its records are no valid {codecs.NAMES[number]}: "):
            unpack(number, bad)


@pytest.mark.parametrize("length", [0, -1, -4, -5, 2**31 - 1, -(2**31)])
def test_a_block_of_snappy_with_a_wrong_length_is_refused(length: int) -> None:
    """aiokafka's own loop goes back with a negative one."""
    with pytest.raises(DamagedBatch, match="snappy"):
        unpack(SNAPPY, b"\x82SNAPPY\x00" + struct.pack(">iii", 1, 1, length) + bytes(40))


def test_an_unknown_codec_is_named() -> None:
    """Kafka has five, and three bits for them."""
    for number in (5, 6, 7):
        with pytest.raises(DamagedBatch, match=f"its codec has the number {number}, which Kafka does not define"):
            unpack(number, b"x")


@pytest.mark.parametrize("number", CODECS.values(), ids=CODECS.keys())
def test_a_batch_without_compression_is_the_same_batch(number: int) -> None:
    """Only its codec is gone, and with it what the checksum fits."""
    found, expected = plain(memoryview(batch(7, range(7, 9), codec=number))), batch(7, range(7, 9))
    assert found[12:17] == expected[12:17] and found[21:] == expected[21:] + bytes(codecs.PADDING)


@pytest.mark.parametrize("number", CODECS.values(), ids=CODECS.keys())
def test_what_is_packed_is_read_again(number: int) -> None:
    """With a checksum that fits, by our reader and by aiokafka's. The rest of the header is the same."""
    raw = batch(0, range(50), producer=7, transactional=True)
    small = bytes(packed(raw, number))
    assert len(small) < 0.6 * len(raw) or number == codecs.NONE
    assert small[22] & codecs.CODEC_MASK == number and small[23:61] == raw[23:61]
    tp = TopicPartition("t", 0)
    assert Chunk(tp, 0, small).take() == Chunk(tp, 0, raw).take()
    theirs: Any = MemoryRecords(small).next_batch()
    assert theirs.validate_crc() and len(list(theirs)) == 50
    if number != codecs.NONE:
        assert packed(small, ZSTD) is small, "a batch is packed once"


def test_what_does_not_get_smaller_is_left_alone() -> None:
    """A codec would only cost time, here and for each reader."""
    raw = batch(0, [0])
    assert packed(raw, LZ4) is raw
