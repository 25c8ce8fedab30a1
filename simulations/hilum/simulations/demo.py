"""The main job, end to end, on phantoms: what `make demo` runs."""

import shutil
from pathlib import Path

from hilum.common.cli import fail
from hilum.common.config import load_study
from hilum.common.errors import HilumError
from hilum.common.lockdown import close_outbound
from hilum.common.log_setup import configure_logging
from hilum.simulations.phantoms import write_phantoms
from hilum.simulations.run import simulate
from hilum.simulations.table import print_table

_FOLDER = Path("demo-run")
_STUDY = Path("examples/phantom-chest.toml")


def main() -> None:
    """Draw three hospitals, pre-train together, fine-tune at each, report. An earlier demo is replaced."""
    close_outbound()
    configure_logging()
    shutil.rmtree(_FOLDER, ignore_errors=True)
    try:
        study = load_study(_STUDY)
        write_phantoms(_FOLDER / "archives", sites=3, patients=160, size=192, seed=7)
        results = simulate(study, _FOLDER / "archives", _FOLDER / "run", _FOLDER / "home")
    except HilumError as error:
        fail(error)
    print_table(results)
    report = (_FOLDER / "run" / "report.html").absolute()
    print(f"report: {report}")


if __name__ == "__main__":
    main()
