"""Augmentations, batched on the device: one file a modality family, over shared operations."""

from hilum.client.views.batch import Share, Viewer, to_unit

__all__ = ["Share", "Viewer", "to_unit"]
