"""A round's health as a site that trains well tells it."""

HEALTHY = {
    "feature_deviation": 0.5,
    "effective_rank": 12.0,
    "residual_norm": 6.0,
    "alignment": 0.1,
    "uniformity": -0.5,
    "start_deviation": 0.2,
    "start_rank": 10.0,
    "start_norm": 3.0,
    "gradient_norm": 0.7,
    "skipped_share": 0.0,
}
COLLAPSED = {**HEALTHY, "feature_deviation": 0.001, "effective_rank": 1.1}
DRIFTING = {**HEALTHY, "residual_norm": 74.0}
