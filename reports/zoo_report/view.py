"""From findings to what the templates show: the sections of the page, in its order.

The HTML page and the Markdown card are made from the same view, so they never disagree.
"""

from __future__ import annotations

from zoo_report.bundle import Bundle
from zoo_report.sections.answers import Answers
from zoo_report.sections.base import Page
from zoo_report.sections.explanations import Explanations
from zoo_report.sections.fairness import Fairness
from zoo_report.sections.limits import Limits
from zoo_report.sections.sweep import Sweep
from zoo_report.sections.training import Training
from zoo_report.sections.variants import Variants
from zoo_report.sections.verdict import Verdict


class View:
    """Everything the templates ask for: tables of cells, charts, and lists of sentences.

    Sections are made in page order once, so that footnotes are numbered as they are read.
    """

    def __init__(self, bundle: Bundle) -> None:
        page = Page.of(bundle)
        self.bundle, self.found, self.notes = page.bundle, page.found, page.notes
        verdict, limits = Verdict(page), Limits(page)
        self.head = verdict.head()
        self.verdict = verdict.verdict()
        self.variants = Variants(page).variants()
        self.sweep = Sweep(page).sweep()
        self.answers = Answers(page).answers()
        self.fairness = Fairness(page).fairness()
        self.explanations = Explanations(page).explanations()
        self.training = Training(page).training()
        self.limits = limits.limits()
        self.commands = limits.commands()
