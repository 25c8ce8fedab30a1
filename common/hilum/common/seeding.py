"""Randomness that depends on names, never on process state.

Every random choice draws from a generator whose seed is derived from (study seed, site, round, step, purpose). So a
step can be repeated after a crash, and in process, under Ray and deployed give the same bits.
"""

import hashlib

import numpy as np

_SEED_BITS = 63


def derive(seed: int, *parts: str | int) -> int:
    """Return a 63-bit seed for one purpose.

    Args:
        seed: The study's seed.
        parts: What the randomness is for, from wide to narrow: `"site-0", "round", 3, "step", 17`.

    Returns:
        The first 63 bits of SHA-256 over all parts, each with its type and length, so that no two lists collide.
    """
    digest = hashlib.sha256()
    for part in (seed, *parts):
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(4, "big") + text)
    return int.from_bytes(digest.digest()[:8], "big") >> (64 - _SEED_BITS)


def generator(seed: int, *parts: str | int) -> np.random.Generator:
    """Return a NumPy generator for one purpose; see `derive`."""
    return np.random.Generator(np.random.PCG64(derive(seed, *parts)))
