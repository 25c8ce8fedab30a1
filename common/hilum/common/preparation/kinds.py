"""What an array is: an image, a volume, or a clip of frames."""

from typing import Literal

Kind = Literal["image", "volume", "cine"]
