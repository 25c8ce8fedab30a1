"""Why a file, or an annotation, was not taken in: one list of codes, each with what it means to the person at the site.

This module owns the codes under which intake counts what it sets aside; they are stored in the catalogue and shown at
the site. Others say no in words of their own, which are never mixed with these:

- `hilum.common.refusals`: a site, to a request of the federation;
- `hilum.common.errors.UpdateRefused`: the server, to what a site sent; `docs/reference/results.md` lists the codes;
- `intake/network`: the receiver and the pull, to an object that never came to lie in the inbox, so that it is no file
  of the archive yet; they count by short words of their own.

Adding a code takes three edits: its line here, where it is raised, and the test of that. Two lists know codes besides: of a file
that another pass or a person may yet decide on, `_UNSETTLED` in `sources/inbox_cleanup`, so that it is never removed; of several codes
in one object, which one stands for it, `_MANY_REASONS` in `planner/plan`. Then
`python tests/support/reference_tables.py` writes the table of docs/reference/reason-codes.md.
"""

from hilum.client.intake.worded_code import WordedCode
from hilum.common.errors import HilumError


class Reason(WordedCode):
    """Why something was set aside."""

    NOT_DICOM = "not_dicom", "not a DICOM file"
    NEEDS_FAMILY = (
        "picture_or_nifti",
        "a NIfTI file or picture: --images FAMILY says what made it, and takes it in",
    )
    NO_UNITS = (
        "picture_without_units",
        "a picture of CT, whose grey levels are not Hounsfield units: give DICOM or NIfTI",
    )
    PACKED = (
        "packed_files",
        "files packed into one (ZIP, tar, gzip, 7z, RAR, ...): unpack it into the archive",
    )
    SYSTEM_FILE = (
        "system_file",
        "left behind by an operating system (._*, .DS_Store, Thumbs.db, ...): no image is lost",
    )
    EMPTY_FILE = "empty_file", "a file of no bytes: copy it again"
    UNREADABLE = "unreadable", "the file could not be opened or read: this user needs read permission on it"
    UNREADABLE_FOLDER = (
        "unreadable_folder",
        "a folder that can't be looked into: this user needs read permission on it",
    )
    LINKED_FOLDER = (
        "link_to_folder",
        "a link to a folder, which is not followed: mount the folder there instead",
    )
    DANGLING_LINK = "dangling_link", "a link that leads nowhere, or round in a circle"
    NOT_A_FILE = "not_a_file", "a pipe, socket or device"
    PATH_TOO_LONG = (
        "path_too_long",
        "a path longer than the system opens: index a folder further down, or shorten names",
    )
    DAMAGED_HEADER = "damaged_header", "the DICOM header is broken"
    MISSING_ATTRIBUTE = "missing_attribute", "an attribute that the image needs is missing or malformed"
    NOT_AN_IMAGE = (
        "not_an_image",
        "a DICOM object that is not an image (report, directory, structure set, ...)",
    )
    OTHER_MODALITY = (
        "other_modality",
        "an image of a kind that is not taken (nuclear medicine, segmentation, dose, video, whole slides, ...)",
    )
    UNSUPPORTED_SYNTAX = (
        "unsupported_transfer_syntax",
        "the compression is not one that is read (video, deflated frames, JPEG XL, ...)",
    )
    UNSUPPORTED_PIXELS = (
        "unsupported_pixel_format",
        "colour, several frames or a bit depth that this kind of image is not read with",
    )
    IMPLAUSIBLE_SIZE = "implausible_size", "the stated image size can't fit in the file"
    LOCALIZER = "localizer", "a scout image, or a few images across the slices of a volume"
    DUPLICATE = (
        "duplicate_instance",
        "another file holds the same instance, or the same image at the same place",
    )
    CONTRADICTING_COPIES = (
        "files_of_one_instance_contradict",
        "files with one instance UID say different things, so that neither can be believed",
    )
    TRUNCATED_PIXELS = "truncated_pixels", "the pixel data ends too early"
    UNDECODABLE_PIXELS = "undecodable_pixels", "the pixel data could not be decoded"
    CONSTANT_PIXELS = "constant_pixels", "every pixel has the same value"
    TOO_FEW_SLICES = "too_few_slices", "the series has slices at too few positions to make a volume"
    TOO_FEW_LEFT = (
        "too_few_slices_left",
        "too few slices are left of a volume, for others of it can't be taken",
    )
    MIXED_GEOMETRY = (
        "mixed_geometry",
        "a few slices that differ from the others in size, spacing, orientation, frame of reference or vendor",
    )
    IRREGULAR_SPACING = "irregular_slice_spacing", "the distance between slices changes, or one is missing"
    MULTIPLE_TIMES = (
        "several_time_points_not_told_apart",
        "several images lie at each position and nothing tells them apart",
    )
    OVERLAPPING_PASSES = (
        "overlapping_passes_not_told_apart",
        "the slices may be of several passes over one region, and nothing tells these apart",
    )
    LYING_GEOMETRY = (
        "geometry_contradicts_itself",
        "positions, orientations or spacings that contradict one another or can't be true",
    )
    UNSUPPORTED_MULTIFRAME = (
        "unsupported_multi_frame",
        "a multi-frame object whose frames have no place in the patient, or whose functional groups are malformed",
    )
    UNSUPPORTED_MOSAIC = (
        "unsupported_mosaic",
        "a mosaic whose private header is missing or of a kind that is not read",
    )
    TOO_LARGE = "too_large", "decoding it would take more memory than a file is given"
    DECODER_DIED = "decoder_died", "the decoder crashed on it"
    DECODER_TIMEOUT = "decoder_timeout", "the decoder did not finish in time"
    BURNED_IN_TEXT = "quarantined_possible_text", "in quarantine: text may be burned into the pixels"
    TEXT_IN_SLICE = (
        "slice_may_show_text",
        "a CT, MR or PET image that says that text is burned in, or a screen: not taken, and not in quarantine",
    )
    DROPPED = "dropped_at_site", "dropped from quarantine at the site"
    SPLIT_SERIES = (
        "series_in_two_places",
        "the series lies partly in the inbox and partly in the folder: index the folder again",
    )
    DAMAGED_FILE = "damaged_file", "a NIfTI file or picture that is broken"
    NOT_FINITE = "not_finite", "a voxel is not a number, or too large for float32"
    NOT_AN_ANNOTATION = "not_an_annotation", "a file that holds no masks or boxes"
    MALFORMED_ANNOTATION = "malformed_annotation", "an annotation that is not what its format asks for"
    UNKNOWN_IMAGE = (
        "annotates_unknown_image",
        "the image that it marks is not indexed, was set aside, or is not named",
    )
    AMBIGUOUS_IMAGE = (
        "annotates_one_of_several_images",
        "several images lie where it lies, and nothing tells which one it marks",
    )
    OFF_GRID = "annotation_off_grid", "its size or place in the patient is not that of the image"
    OUTSIDE_IMAGE = "box_outside_image", "a box that reaches out of its image"
    BOX_ON_VOLUME = "box_on_volume", "a box on one slice of a volume"
    UNMAPPED_LABEL = "label_not_mapped", "its label is free text that the site's label map does not name"
    UNSUPPORTED_CONTOUR = (
        "unsupported_contour",
        "contours that are not closed, or not in the planes of the image",
    )
    EMPTY_ANNOTATION = "empty_annotation", "it marks no voxel"
    DUPLICATE_ANNOTATION = "duplicate_annotation", "another file or row marks the very same"


class Skip(HilumError):  # noqa: N818 - the file is counted under its reason
    """Raised inside intake to set one file or one series aside.

    Args:
        reason: The code under which it is counted.
        uids: SOP, series and study UID where the header gave them, so that a label for this file is still known.
    """

    def __init__(self, reason: Reason, uids: tuple[str, str, str] = ("", "", "")) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.uids = uids
