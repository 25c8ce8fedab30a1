"""What tells the volumes of one series apart, in words: for people at the site, and free of values."""

from collections.abc import Mapping

SPLIT_WORDS: Mapping[str, str] = {
    "family": "kind of image",
    "localizer": "scout or not",
    "frame_of_reference": "frame of reference",
    "size": "image size",
    "inverted": "inverted or not",
    "quantity": "quantity of the values",
    "vendor": "vendor",
    "mosaic": "mosaic",
    "type": "image type",
    "component": "phase or magnitude",
    "coil": "coil",
    "echo": "echo",
    "kernel": "kernel",
    "spacing": "pixel spacing",
    "orientation": "orientation",
    "echo_time": "echo time",
    "flip": "flip angle",
    "kvp": "tube voltage",
    "b": "b-value",
    "gradient": "diffusion direction",
    "repetition": "repetition time",
    "inversion": "inversion time",
    "stack": "stack",
    "time": "time point",
    "object": "multi-frame object",
    "trigger": "trigger time",
    "inversion_step": "inversion time",
    "repetition_step": "repetition time",
    "agent": "contrast agent",
    "acquisition": "acquisition number",
    "acquisitions": "acquisition number",
    "acquisition_sweep": "acquisition number",
    "pass": "acquisition time",
    "trigger_sweep": "trigger time",
    "time_sweep": "acquisition time",
    "number": "instance number",
    "number_sweep": "instance number",
    "station": "station",
    "run": "gap or change of the slice distance",
}
"""By the words of a volume's key, in `PlannedVolume.key` and `Quality.split_on`."""


def in_words(split_on: str) -> str:
    """Names with a comma between them, in words."""
    return " and ".join(dict.fromkeys(SPLIT_WORDS.get(name, name) for name in split_on.split(",") if name))
