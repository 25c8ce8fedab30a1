"""The table of transfer syntaxes agrees with the standard, and what is read with it."""

import pytest
from pydicom.uid import UID

from hilum.client.intake.pixels.decoders import DECODERS, Decoder
from hilum.client.intake.transfer_syntaxes import SUPPORTED_SYNTAXES, UNCOMPRESSED
from pixel_files import ENCAPSULATED_NATIVE, ENCODERS, LOSSY

ROWS = list(SUPPORTED_SYNTAXES.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.uid)
def test_a_row_says_what_pydicom_says(row):
    uid = UID(row.uid)
    assert uid.is_transfer_syntax
    assert row.name == uid.name
    assert row.implicit == uid.is_implicit_VR
    assert row.big_endian == (not uid.is_little_endian)
    assert row.deflated == uid.is_deflated
    assert row.encapsulated == uid.is_encapsulated


def test_a_sender_that_offers_several_gives_lossless_before_lossy():
    assert [row.lossless for row in ROWS] == sorted((row.lossless for row in ROWS), reverse=True)


def test_every_compressed_syntax_has_decoders_and_an_encoder_that_tries_them():
    compressed = {row.uid for row in ROWS if row.coding != "none"}
    assert DECODERS.keys() == ENCODERS.keys() == compressed
    assert all(isinstance(one, Decoder) for several in DECODERS.values() for one in several)
    assert {uid for uid in compressed if not SUPPORTED_SYNTAXES[uid].lossless} == LOSSY.keys()
    assert SUPPORTED_SYNTAXES.keys() - compressed == UNCOMPRESSED
    assert ENCAPSULATED_NATIVE in UNCOMPRESSED
