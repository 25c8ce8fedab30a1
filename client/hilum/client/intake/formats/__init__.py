"""What files hold that are no DICOM images: NIfTI, pictures, segmentations, structure sets, label volumes."""
