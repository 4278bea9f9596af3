"""Arrays to figures: metrics, intervals by resampling groups, calibration, colour drift, the colour baseline.

Reads labels, probabilities, groups and colour features; leaves numbers. Touches no file. Imports core and schemas.
"""
