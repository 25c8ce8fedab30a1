"""Why a file was not taken in: one list of codes, each with what it means to the person at the site."""

from enum import StrEnum

from hilum.common.errors import HilumError


class Reason(StrEnum):
    """The code is stored and counted; `EXPLAINED` says it in words."""

    NOT_DICOM = "not_dicom"
    NEEDS_FAMILY = "picture_or_nifti"
    NO_UNITS = "picture_without_units"
    PACKED = "packed_files"
    SYSTEM_FILE = "system_file"
    EMPTY_FILE = "empty_file"
    UNREADABLE = "unreadable"
    UNREADABLE_FOLDER = "unreadable_folder"
    LINKED_FOLDER = "link_to_folder"
    DANGLING_LINK = "dangling_link"
    NOT_A_FILE = "not_a_file"
    PATH_TOO_LONG = "path_too_long"
    DAMAGED_HEADER = "damaged_header"
    MISSING_ATTRIBUTE = "missing_attribute"
    NOT_AN_IMAGE = "not_an_image"
    OTHER_MODALITY = "other_modality"
    UNSUPPORTED_SYNTAX = "unsupported_transfer_syntax"
    UNSUPPORTED_PIXELS = "unsupported_pixel_format"
    IMPLAUSIBLE_SIZE = "implausible_size"
    LOCALIZER = "localizer"
    DUPLICATE = "duplicate_instance"
    CONTRADICTING_COPIES = "files_of_one_instance_contradict"
    TRUNCATED_PIXELS = "truncated_pixels"
    UNDECODABLE_PIXELS = "undecodable_pixels"
    CONSTANT_PIXELS = "constant_pixels"
    TOO_FEW_SLICES = "too_few_slices"
    TOO_FEW_LEFT = "too_few_slices_left"
    MIXED_GEOMETRY = "mixed_geometry"
    IRREGULAR_SPACING = "irregular_slice_spacing"
    MULTIPLE_TIMES = "several_time_points_not_told_apart"
    OVERLAPPING_PASSES = "overlapping_passes_not_told_apart"
    LYING_GEOMETRY = "geometry_contradicts_itself"
    UNSUPPORTED_MULTIFRAME = "unsupported_multi_frame"
    UNSUPPORTED_MOSAIC = "unsupported_mosaic"
    TOO_LARGE = "too_large"
    DECODER_DIED = "decoder_died"
    DECODER_TIMEOUT = "decoder_timeout"
    BURNED_IN_TEXT = "quarantined_possible_text"
    TEXT_IN_SLICE = "slice_may_show_text"
    DROPPED = "dropped_at_site"
    SPLIT_SERIES = "series_in_two_places"
    DAMAGED_FILE = "damaged_file"
    NOT_FINITE = "not_finite"
    NOT_AN_ANNOTATION = "not_an_annotation"
    MALFORMED_ANNOTATION = "malformed_annotation"
    UNKNOWN_IMAGE = "annotates_unknown_image"
    AMBIGUOUS_IMAGE = "annotates_one_of_several_images"
    OFF_GRID = "annotation_off_grid"
    OUTSIDE_IMAGE = "box_outside_image"
    BOX_ON_VOLUME = "box_on_volume"
    UNMAPPED_LABEL = "label_not_mapped"
    UNSUPPORTED_CONTOUR = "unsupported_contour"
    EMPTY_ANNOTATION = "empty_annotation"
    DUPLICATE_ANNOTATION = "duplicate_annotation"


EXPLAINED = {
    Reason.NOT_DICOM: "not a DICOM file",
    Reason.NEEDS_FAMILY: "a NIfTI file or picture: --images FAMILY says what made it, and takes it in",
    Reason.NO_UNITS: "a picture of CT, whose grey levels are not Hounsfield units: give DICOM or NIfTI",
    Reason.PACKED: "files packed into one (ZIP, tar, gzip, 7z, RAR, ...): unpack it into the archive",
    Reason.SYSTEM_FILE: "left behind by an operating system (._*, .DS_Store, Thumbs.db, ...): no image is lost",
    Reason.EMPTY_FILE: "a file of no bytes: copy it again",
    Reason.UNREADABLE: "the file could not be opened or read: this user needs read permission on it",
    Reason.UNREADABLE_FOLDER: "a folder that can't be looked into: this user needs read permission on it",
    Reason.LINKED_FOLDER: "a link to a folder, which is not followed: mount the folder there instead",
    Reason.DANGLING_LINK: "a link that leads nowhere, or round in a circle",
    Reason.NOT_A_FILE: "a pipe, socket or device",
    Reason.PATH_TOO_LONG: "a path longer than the system opens: index a folder further down, or shorten names",
    Reason.DAMAGED_HEADER: "the DICOM header is broken",
    Reason.MISSING_ATTRIBUTE: "an attribute that the image needs is missing or malformed",
    Reason.NOT_AN_IMAGE: "a DICOM object that is not an image (report, directory, structure set, ...)",
    Reason.OTHER_MODALITY: "an image of a kind that is not taken (nuclear medicine, segmentation, dose, video, whole slides, ...)",
    Reason.UNSUPPORTED_SYNTAX: "the compression is not one that is read (video, deflated frames, JPEG XL, ...)",
    Reason.UNSUPPORTED_PIXELS: "colour, several frames or a bit depth that this kind of image is not read with",
    Reason.IMPLAUSIBLE_SIZE: "the stated image size can't fit in the file",
    Reason.LOCALIZER: "a scout image, or a few images across the slices of a volume",
    Reason.DUPLICATE: "another file holds the same instance, or the same image at the same place",
    Reason.CONTRADICTING_COPIES: "files with one instance UID say different things, so that neither can be believed",
    Reason.TRUNCATED_PIXELS: "the pixel data ends too early",
    Reason.UNDECODABLE_PIXELS: "the pixel data could not be decoded",
    Reason.CONSTANT_PIXELS: "every pixel has the same value",
    Reason.TOO_FEW_SLICES: "the series has slices at too few positions to make a volume",
    Reason.TOO_FEW_LEFT: "too few slices are left of a volume, for others of it can't be taken",
    Reason.MIXED_GEOMETRY: "a few slices that differ from the others in size, spacing, orientation, frame of reference or vendor",
    Reason.IRREGULAR_SPACING: "the distance between slices changes, or one is missing",
    Reason.MULTIPLE_TIMES: "several images lie at each position and nothing tells them apart",
    Reason.OVERLAPPING_PASSES: "the slices may be of several passes over one region, and nothing tells these apart",
    Reason.LYING_GEOMETRY: "positions, orientations or spacings that contradict one another or can't be true",
    Reason.UNSUPPORTED_MULTIFRAME: "a multi-frame object whose frames have no place in the patient, or whose functional groups are malformed",
    Reason.UNSUPPORTED_MOSAIC: "a mosaic whose private header is missing or of a kind that is not read",
    Reason.TOO_LARGE: "decoding it would take more memory than a file is given",
    Reason.DECODER_DIED: "the decoder crashed on it",
    Reason.DECODER_TIMEOUT: "the decoder did not finish in time",
    Reason.BURNED_IN_TEXT: "in quarantine: text may be burned into the pixels",
    Reason.TEXT_IN_SLICE: "a CT, MR or PET image that says that text is burned in, or a screen: not taken, and not in quarantine",
    Reason.DROPPED: "dropped from quarantine at the site",
    Reason.SPLIT_SERIES: "the series lies partly in the inbox and partly in the folder: index the folder again",
    Reason.DAMAGED_FILE: "a NIfTI file or picture that is broken",
    Reason.NOT_FINITE: "a voxel is not a number, or too large for float32",
    Reason.NOT_AN_ANNOTATION: "a file that holds no masks or boxes",
    Reason.MALFORMED_ANNOTATION: "an annotation that is not what its format asks for",
    Reason.UNKNOWN_IMAGE: "the image that it marks is not indexed, was set aside, or is not named",
    Reason.AMBIGUOUS_IMAGE: "several images lie where it lies, and nothing tells which one it marks",
    Reason.OFF_GRID: "its size or place in the patient is not that of the image",
    Reason.OUTSIDE_IMAGE: "a box that reaches out of its image",
    Reason.BOX_ON_VOLUME: "a box on one slice of a volume",
    Reason.UNMAPPED_LABEL: "its label is free text that the site's label map does not name",
    Reason.UNSUPPORTED_CONTOUR: "contours that are not closed, or not in the planes of the image",
    Reason.EMPTY_ANNOTATION: "it marks no voxel",
    Reason.DUPLICATE_ANNOTATION: "another file or row marks the very same",
}


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
