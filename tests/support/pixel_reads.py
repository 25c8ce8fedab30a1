"""What tests read of the files that `pixel_files` writes."""

import numpy as np
import pytest

from hilum.client.intake.pixels.images import read_stored
from hilum.client.intake.reasons import Reason, Skip
from pixel_files import BASELINE, BIG, DEFLATED, ENCODERS, EXPLICIT, IMPLICIT

EVERY = [IMPLICIT, EXPLICIT, BIG, DEFLATED, *ENCODERS]


def stored(path, instance, indices=None):
    return np.stack(list(read_stored(path, instance, indices or range(instance.pixels.frames))))


def refused(read, *args) -> Reason:
    with pytest.raises(Skip) as skip:
        list(read(*args))
    return skip.value.reason


def bits_for(syntax):
    return 8 if syntax == BASELINE else 12
