"""Flower's Ray engine: each virtual site in a Ray worker, on this machine or a cluster."""

import logging
import os
import tempfile

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp


def run_on_ray(server_app: ServerApp, client_app: ClientApp, *, nodes: int, threads: int) -> None:
    """Run the two apps under Ray.

    Args:
        server_app: Runs in a thread of this process.
        client_app: Sent to the workers.
        nodes: How many virtual sites.
        threads: CPU cores that one site takes.

    Raises:
        Exception: What the server app raised.
    """
    import torch
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    gpus = torch.cuda.device_count()
    before = os.environ.get("PYTHONPATH")
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        try:
            run_simulation(
                server_app=server_app,
                client_app=client_app,
                num_supernodes=nodes,
                backend_config={
                    "init_args": {
                        "include_dashboard": False,
                        "log_to_driver": False,
                        "logging_level": "error",
                        "_temp_dir": folder,
                    },
                    "client_resources": {"num_cpus": float(threads), "num_gpus": min(1.0, gpus / nodes)},
                },
            )
        finally:
            # The engine overwrites this and leaves it so.
            if before is None:
                os.environ.pop("PYTHONPATH", None)
            else:
                os.environ["PYTHONPATH"] = before
