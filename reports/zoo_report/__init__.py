"""A run's documents as one HTML page and a Markdown model card. No TensorFlow, no side effects."""

from zoo_report.bundle import Bundle, Rendered, read_bundle
from zoo_report.render import render

__all__ = ["Bundle", "Rendered", "read_bundle", "render"]
