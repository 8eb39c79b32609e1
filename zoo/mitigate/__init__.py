"""Bias mitigation: steps of recipes that make groups be treated alike, and what they store."""
