"""A hospital opens no connection but the one to its federation."""

import os
import subprocess
import sys

from hilum.common.lockdown import OUTBOUND_OFF

PROBE = """
import hilum.common.lockdown
hilum.common.lockdown.close_outbound()
import hilum.client.app, hilum.server.app
import importlib, sys
importlib.import_module("flwr.superlink.cli.flower_superlink")
superlink = sys.modules["flwr.superlink.cli.flower_superlink"]
from flwr.supercore import telemetry, update_check

def refuse(*words):
    raise SystemExit("an update check was begun")

update_check._start_flwr_update_check_refresh_thread = refuse
update_check.warn_if_flwr_update_available("test")
print(telemetry.FLWR_TELEMETRY_ENABLED, superlink._runtime_dependency_install_default())
"""


def test_the_switches_are_set_before_flower_is_imported_and_it_obeys():
    clean = {key: value for key, value in os.environ.items() if key not in OUTBOUND_OFF}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, env=clean, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0 False"


def test_the_probe_would_notice_if_the_switches_were_on():
    opened = PROBE.replace(
        "hilum.common.lockdown.close_outbound()", "hilum.common.lockdown.OUTBOUND_OFF.clear()"
    )
    clean = {key: value for key, value in os.environ.items() if key not in OUTBOUND_OFF}
    done = subprocess.run(
        [sys.executable, "-c", opened], capture_output=True, text=True, env=clean, check=False
    )
    assert "an update check was begun" in done.stderr
