"""From DICOM files to pseudonymous arrays with known units. The only place that reads DICOM."""
