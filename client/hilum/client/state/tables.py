"""The tables of a site's catalogue, `catalogue.sqlite`.

Keys are pseudonyms (`Pseudonyms`); the other columns are typed technical facts. No UID, name, date or text of a DICOM
attribute is stored, nor the path of a file; the one path is that of the indexed folder, as the site's engineer named it.
"""

from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table

VERSION = 2  # of the columns below

METADATA = MetaData()


def _text(name: str) -> Column[str]:
    return Column(name, String, nullable=False)


def _item_columns() -> tuple[Column[str], ...]:
    """Return the columns of a table of items, one for each attribute of `Item`; lists are JSON."""
    key: Column[str] = Column("item_key", String, primary_key=True)
    facts = (
        "kind",
        "family",
        "units",
        "content_sha256",
        "shape",
        "spacing_mm",
        "affine",
        "sop_key",
        "series_key",
        "study_key",
        "patient_key",
        "quality",
    )
    return key, *map(_text, facts)


FILES = Table(
    "files",
    METADATA,
    Column("file_key", String, primary_key=True),
    _text("identity"),
    _text("status"),
    _text("sop_key"),
    _text("series_key"),
    _text("study_key"),
    _text("item_key"),
    Index("files_series", "series_key"),
    Index("files_sop", "sop_key"),
)
ITEMS = Table("items", METADATA, *_item_columns(), Index("items_series", "series_key"))
ANNOTATIONS = Table(
    "annotations",
    METADATA,
    Column("annotation_key", String, primary_key=True),
    _text("item_key"),
    _text("item_state"),
    _text("kind"),
    _text("label"),
    _text("content_sha256"),
    _text("place"),
    _text("source"),
    _text("folder_key"),
    Index("annotations_item", "item_key"),
)
QUARANTINE = Table("quarantine", METADATA, *_item_columns(), _text("reason"), _text("state"), _text("crop"))
INDEX_RUNS = Table(
    "index_runs",
    METADATA,
    Column("number", Integer, primary_key=True),
    _text("folder"),
    _text("began"),
    Column("seconds", Float),
    Column("decoded", Integer, nullable=False),
    Column("removed", Integer, nullable=False),
)

REFILLED = (FILES, ITEMS, ANNOTATIONS)
"""What an index and the site's annotations fill again; what a person decided is kept from version to version."""
