"""Keep third-party packages from opening connections.

A hospital opens no connection but the one to its federation: telemetry, update checks and run-time installs are off
before the package that would do them is imported.
"""

import os

# https://flower.ai/docs/framework: names as read by flwr 1.41.
OUTBOUND_OFF = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def close_outbound() -> None:
    """Set the switches for this process and for what it starts. Call it before Flower or Ray is imported."""
    os.environ.update(OUTBOUND_OFF)
