"""The attribution methods, one row each, and the router that picks one by a model's layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zoo.errors import ZooError, unknown
from zoo_explain.attribution import blackbox, whitebox
from zoo_explain.attribution.game import Attribution, Game


@dataclass(frozen=True)
class Method:
    """One method.

    ``obstacle(model, players)`` says why it does not apply, or None. ``because(model, players)``
    tells the reader why it was picked. ``white_box``: it needs the Keras model. ``additive``: its
    values add up to the output minus the base by construction, not only in the limit. ``exact``:
    they are the Shapley values themselves, not an estimate or approximation. ``thinning`` says why a
    method may use fewer background rows than it is given, if it may.
    """

    name: str
    title: str
    white_box: bool
    additive: bool
    exact: bool
    obstacle: Callable[[Any, int], str | None]
    because: Callable[[Any, int], str]
    run: Callable[[Game], Attribution]
    source: str
    thinning: str = ""


def _white(obstacle: Callable[[Any], str | None]) -> Callable[[Any, int], str | None]:
    def check(model: Any, players: int) -> str | None:
        if model is None:
            return "the artefact has no gradients"
        return obstacle(model)

    return check


def _too_many(model: Any, players: int) -> str | None:
    if players <= blackbox.EXACT_PLAYERS:
        return None
    return f"2^{players} coalitions are too many (at most {blackbox.EXACT_PLAYERS} players)"


def _why_gradient(model: Any, players: int) -> str:
    return f"{whitebox.not_deep(model)}; expected gradients"


def _why_black_box(how: str) -> Callable[[Any, int], str]:
    def because(model: Any, players: int) -> str:
        reason = _white(whitebox.not_differentiable)(model, players)
        return f"{reason}: {how.format(players=players)}"

    return because


# In the router's order: the first that applies is picked.
METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        Method("linear", "closed form of an affine model", True, True, True,
               _white(whitebox.not_linear),
               lambda model, players: "the model is affine: its Shapley values have a closed form",
               whitebox.linear, "Lundberg & Lee, NeurIPS 2017, corollary 1"),
        Method("deep", "DeepSHAP", True, True, False,
               _white(whitebox.not_deep),
               lambda model, players: "every layer is one DeepSHAP handles exactly: "
               + whitebox.layer_names(model),
               whitebox.deep, "Lundberg & Lee, NeurIPS 2017; Shrikumar et al., ICML 2017"),
        Method("gradient", "expected gradients", True, False, False,
               _white(whitebox.not_differentiable), _why_gradient,
               whitebox.gradient, "Erion et al., Nature Machine Intelligence 3, 2021"),
        Method("tokens", "expected gradients of word vectors", True, False, False,
               _white(whitebox.not_tokens),
               lambda model, players: "ids have no gradients, their word vectors do: expected "
               "gradients from the Embedding's output",
               whitebox.tokens, "Sundararajan, Taly & Yan, ICML 2017; Erion et al., Nature Machine "
               "Intelligence 3, 2021",
               f"their word vectors are held to {whitebox.TOKEN_VALUES:,} numbers"),
        Method("exact", "Shapley values by enumeration", False, True, True,
               _too_many, _why_black_box("Shapley values over all coalitions of {players} players"),
               blackbox.exact, "Shapley 1953; Lundberg & Lee, NeurIPS 2017",
               f"a row may cost {blackbox.EXACT_CALLS:,} calls of the artefact"),
        Method("permutation", "Shapley values by permutation sampling", False, True, False,
               lambda model, players: None,
               _why_black_box("Shapley values by permutation over {players} players"),
               blackbox.permutation,
               "Castro et al., Computers & OR 36, 2009; Strumbelj & Kononenko, KAIS 41, 2014; "
               "Mitchell et al., JMLR 23, 2022",
               "a row may cost {budget:,} calls of the artefact"),
    )
}  # fmt: skip


def find_method(name: str) -> Method:
    """A method by its name. Raises :class:`ZooError` for an unknown one."""
    if name not in METHODS:
        raise unknown("explanation method", name, METHODS)
    return METHODS[name]


def route(model: Any, players: int, method: str | None = None) -> tuple[str, str]:
    """The method for a model and a sentence that says why.

    Args:
        model: the functional Keras model, or None where only a callable artefact exists.
        players: how many players there are.
        method: a name of :data:`METHODS` to insist on; None picks the first that applies.

    Raises:
        ZooError: for an unknown method, or one that does not apply, with the reason.
    """
    if method is None:
        picked = next(row for row in METHODS.values() if row.obstacle(model, players) is None)
        return picked.name, picked.because(model, players)
    chosen = find_method(method)
    obstacle = chosen.obstacle(model, players)
    if obstacle:
        fits = [row.name for row in METHODS.values() if row.obstacle(model, players) is None]
        raise ZooError(
            f"The method {method!r} does not apply: {obstacle}.",
            expected=f"one of: {', '.join(fits)}",
            received=method,
            hint=f"Leave --method out to get {fits[0]!r}.",
            kind="method_does_not_apply",
        )
    return method, f"asked for: {chosen.title}"
