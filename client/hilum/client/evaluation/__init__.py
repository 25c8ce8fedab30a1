"""One standard protocol: splits by patient, floors, metrics with patient-level intervals."""
