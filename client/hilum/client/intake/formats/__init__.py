"""What files hold that are not DICOM images: NIfTI, pictures, segmentations, structure sets, label volumes."""
