from pathlib import Path

import hilum.client
import hilum.common
import hilum.server
import hilum.simulations
from places import ROOT


def test_hilum_is_a_namespace_that_four_folders_share():
    for portion in ("common", "client", "server", "simulations"):
        assert not (ROOT / portion / "hilum" / "__init__.py").exists()
        assert (ROOT / portion / "hilum" / portion / "py.typed").exists()
    assert (
        len(
            {
                Path(p.__file__).parents[2]
                for p in (hilum.common, hilum.client, hilum.server, hilum.simulations)
            }
        )
        == 4
    )
