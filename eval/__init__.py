"""Judging models: mask quality against ground truth, latency in a real browser, one report, and a gate on it."""
