"""Augmentations, batched on the device: one file a modality family, over shared operations."""

from hilum.client.views.batch import Share, Viewer, random_numbers, to_unit, unit_of

__all__ = ["Share", "Viewer", "random_numbers", "to_unit", "unit_of"]
