"""Augmentations, batched on the device: one file a modality family, over shared operations."""

from hilum.client.views.batch import Viewer, to_unit

__all__ = ["Viewer", "to_unit"]
