"""What a PACS gives: DICOMweb and C-STORE, each bounded before it is believed."""
