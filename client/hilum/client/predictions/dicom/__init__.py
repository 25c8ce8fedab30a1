"""Predictions as DICOM objects: segmentations (PS3.3 section A.51) and reports of measurements (PS3.16 TID 1500)."""
