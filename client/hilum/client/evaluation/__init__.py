"""One standard protocol: splits by patient, baselines, metrics with patient-level intervals."""
