"""The same bits in each run on one kind of GPU (`training.deterministic`), for what it costs in time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def determinism(wanted: bool, device: torch.device) -> Iterator[None]:
    """Let kernels whose sums have no order be replaced, or refused; on a processor there are none.

    Of the fused attentions, one alone has a backward pass with an order; where it does not serve, attention is computed from
    plain products.

    Args:
        wanted: Whether to.
        device: What is trained on.
    """
    if not wanted or device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
