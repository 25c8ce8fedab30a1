"""Where the tests find what they read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
SHARED = ROOT.parent / "shared"  # real images, beside the checkout; absent on most machines
