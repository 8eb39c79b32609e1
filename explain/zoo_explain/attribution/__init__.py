"""Attributions: a model's output shared out among a user's columns, patches or time steps."""

from zoo_explain.attribution.blackbox import BUDGET
from zoo_explain.attribution.engine import Explanation, explain
from zoo_explain.attribution.methods import METHODS, Method, find_method, route
from zoo_explain.attribution.players import Player, columns_to_players, patches
from zoo_explain.attribution.quality import deletion_insertion, quality

__all__ = [
    "BUDGET",
    "METHODS",
    "Explanation",
    "Method",
    "Player",
    "columns_to_players",
    "deletion_insertion",
    "explain",
    "find_method",
    "patches",
    "quality",
    "route",
]
