"""Disparities between groups, measured with intervals, and compared between two models."""

from zoo_explain.fairness.audits import audit
from zoo_explain.fairness.paired import adjust_holm, compare, noise_floor

__all__ = ["adjust_holm", "audit", "compare", "noise_floor"]
