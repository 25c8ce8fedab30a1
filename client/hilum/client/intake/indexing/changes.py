"""What a pass finds otherwise than the pass before it: which files are new, changed, gone or as they were."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hilum.client.intake.formats.not_dicom import is_folder_file
from hilum.client.intake.instance import Family
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sources.scan import FoundFile
from hilum.client.intake.sources.sources import Found, is_removed
from hilum.client.state.catalogue import ACCEPTED, FileRow
from hilum.client.state.workspace import Pseudonyms

_NOT_YET_A_PICTURE = frozenset({Reason.NEEDS_FAMILY, Reason.NOT_DICOM})
"""The status of what may be a picture, where no earlier pass was told what made it."""


@dataclass(frozen=True)
class Told:
    """What a pass was told of the NIfTI files and pictures of the folder.

    Attributes:
        images: What made them; None takes none that is new.
        forget: Where `images` is None, set those aside too that an earlier pass was told of.
    """

    images: Family | None
    forget: bool

    def is_picture(self, file: FoundFile) -> bool:
        """Tell whether a file is to be read as one of them."""
        return self.images is not None and file.set_aside is None and is_folder_file(file.path)

    def identity_of(self, picture: FoundFile) -> str:
        """Return the identity of one of them, with what made it: told otherwise, it is another file."""
        return f"{picture.identity}:{self.images}"

    def is_unchanged(self, row: FileRow | None, file: FoundFile) -> bool:
        """Tell whether a file would be read as it was when its row was written."""
        # Of a file that could not be read, no time of change tells that its permissions are others now.
        if row is None or row.status == Reason.UNREADABLE:
            return False
        if file.set_aside is not None:
            return (row.identity, row.status) == (file.identity, file.set_aside)
        if self.images is None and not self.forget:  # a picture stays as an earlier pass was told
            return row.identity == file.identity or row.identity.startswith(f"{file.identity}:")
        if not self.is_picture(file):
            return row.identity == file.identity
        read_as_dicom = row.identity == file.identity and row.status not in _NOT_YET_A_PICTURE
        return read_as_dicom or row.identity == self.identity_of(file)


@dataclass(frozen=True)
class Changes:
    """What a pass finds, held against the catalogue. Files are named by their keys.

    Attributes:
        files: All that the pass found.
        new: Those that the catalogue does not know.
        changed: Those that are another than they were, and those that may stand in for one that is, or that is gone.
        gone: What the catalogue knows where the pass looked, and is not there.
        unchanged: The rows of the others, which stay.
        unseen: The rows of what an earlier pass found where this one does not look.
        elsewhere: The series that go on there.
        touched: The series whose volume can't stay as it is.
    """

    files: Mapping[str, FoundFile] = field(repr=False)
    new: frozenset[str]
    changed: frozenset[str]
    gone: tuple[str, ...]
    unchanged: Mapping[str, FileRow]
    unseen: tuple[FileRow, ...]
    elsewhere: frozenset[str]
    touched: frozenset[str]

    @property
    def unread(self) -> frozenset[str]:
        """The files to be read."""
        return self.new | self.changed

    @property
    def split(self) -> list[FileRow]:
        """The rows of what this pass does not look at, of a volume that can't stay."""
        return [row for row in self.unseen if row.series_key in self.touched and not is_removed(row.file_key)]


def compare(rows: Mapping[str, FileRow], found: Found, names: Pseudonyms, told: Told) -> Changes:
    """Hold what a pass found against what the catalogue knows.

    Args:
        rows: All of the catalogue, by key.
        found: By this pass.
        names: The site's pseudonyms.
        told: Of the folder's pictures.
    """
    files = found.keyed(names)
    known = {key: row for key, row in rows.items() if found.covers(key)}
    unseen = tuple(row for key, row in rows.items() if key not in known)
    apart = [row for row in unseen if row.status != Reason.DUPLICATE and row.series_key]
    elsewhere = frozenset(row.series_key for row in apart)

    gone = tuple(key for key in known if key not in files)
    unread = {key for key, file in files.items() if not told.is_unchanged(known.get(key), file)}
    # The slices that a split series lacked may be in view now.
    unread |= {key for key, row in known.items() if row.status == Reason.SPLIT_SERIES and key in files}
    # Other files of an instance of which one is gone or changed: each may stand in now, in the series that it names.
    sops = {known[key].sop_key for key in (*gone, *(unread & known.keys()))} - {""}
    unread |= {key for key, row in known.items() if row.sop_key in sops and key in files}

    changed = frozenset(unread & known.keys())
    # A slice that was set aside is not in its series' volume, so that one stays if it goes on elsewhere. What was
    # removed from the inbox stays as it is.
    touched = {
        row.series_key
        for row in (known[key] for key in (*gone, *changed))
        if row.status == ACCEPTED or row.series_key not in elsewhere
    }
    removed = {row.series_key for row in apart if is_removed(row.file_key)}
    return Changes(
        files=files,
        new=frozenset(unread - known.keys()),
        changed=changed,
        gone=gone,
        unchanged={key: row for key, row in known.items() if key in files and key not in changed},
        unseen=unseen,
        elsewhere=elsewhere,
        touched=frozenset(touched - {"", *removed}),
    )
