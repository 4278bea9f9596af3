"""What the gate is told and what it answers: facts, policy, comparisons, decision."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy.typing as npt

from components.core import json_documents
from components.errors import UsageError
from components.metrics.bootstrap import PairedDifference
from components.training.recipe_parts import Gate

Disjointness = Literal["disjoint", "leaky", "unproven"]
GAINS = (0.01, 0.02, 0.05)
"""True differences for which the chance of being promoted is told."""


@dataclasses.dataclass(frozen=True)
class GatePolicy:
    """What the gate asks for: what a recipe's `Gate` states, and what no recipe changes.

    Attributes:
        criterion: `better` (lower limit of the difference above 0) or `non-inferior` (a model that is not
            shown to be better may also replace the champion if it is shown to be at most `margin` worse than
            the champion and than the best model that the gate ever promoted).
        margin: Of the primary metric, for `non-inferior` only.
        baseline: The same two, against the colour baseline; or `report`: compared, but not decided on.
        pool: Pool patients of all classes where a class has too few groups; None: for several classes only. A
            binary task cannot be pooled, as AUC needs both classes.
        resamples: Paired resamples of groups.
        confidence: Of the two-sided interval whose lower limit decides at the first look at a test split.
        seed: Of the resamples.
        requested: `auto` where the criterion was chosen by the rule of that name.
        why: Then what it was chosen for, as a clause.
    """

    criterion: Literal["better", "non-inferior"] = "better"
    margin: float = Gate.margin
    baseline: Literal["better", "non-inferior", "report"] = "better"
    pool: bool | None = None
    resamples: int = Gate.n_resamples
    confidence: float = 0.95
    seed: int = 0
    requested: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        if self.criterion not in ("better", "non-inferior"):
            raise UsageError(f"Gate criterion {self.criterion!r} is not known.", "Use 'better' or 'non-inferior'.")
        if self.baseline not in ("better", "non-inferior", "report"):
            raise UsageError(
                f"Gate baseline {self.baseline!r} is not known.", "Use 'better', 'non-inferior' or 'report'."
            )
        if not 0 < self.margin < 1:
            raise UsageError(
                f"The gate's margin is {self.margin}.", "Use a number between 0 and 1, such as 0.01."
            )
        if self.resamples < 100 or not 0.5 <= self.confidence < 1:
            raise UsageError(
                f"The gate was asked for {self.resamples} resamples at confidence {self.confidence}.",
                "Use at least 100 resamples and a confidence from 0.5 to below 1.",
            )


@dataclasses.dataclass(frozen=True)
class GateModel:
    """A model's answers on the current test patches.

    Attributes:
        name: Version or run as people know it.
        probability: P(positive) [N], or [N, C], from the exported model.
        trained_on: Groups that the model was fitted or tuned on (train and eval), of whichever data set
            version.
        by_gate: Promoted by the gate, which has shown it better than colours; not by hand.
        scored: Patches that it gave an answer to, bool [N]: out of fold it has none for patients that it never had.
            None: all.
        others: Groups that it answered for and that are not among the current ones.
    """

    name: str
    probability: npt.ArrayLike
    trained_on: frozenset[str] = frozenset()
    by_gate: bool = True
    scored: npt.ArrayLike | None = None
    others: int = 0


@dataclasses.dataclass(frozen=True)
class GateInputs:
    """The facts that the gate decides on.

    Attributes:
        labels: Class numbers of the test patches, [N].
        groups: Group of each test patch, [N], strings.
        candidate: The new model; None where it could not be loaded (then `answers` is False).
        baseline: Colour baseline's probabilities on the same patches.
        champion: Last promoted model, None where there is none.
        best_ever: Best model that the gate ever promoted, None where there is none.
        blessed: Whether the Evaluator's absolute floors are met.
        blessing_reason: If not, which floor, as a clause ("AUC 0.71 is below the floor of 0.75").
        answers: Whether the exported model loads in a fresh process and answers both signatures with its own
            predictions.
        answers_reason: If not, what happened, as a clause.
        disjointness: Whether no patient is in two splits: `disjoint`, `leaky`, or `unproven`.
        disjointness_reason: If not disjoint, why, as a clause.
        group_unit: What a group is called: "patient" or "slide".
        look: Which look at the test split this is, 1 for the first; see `components.metrics.error_spending`.
        incomparable: Why the champion's figures can't be compared with the candidate's, as a clause; empty where they
            can.
        drawn: Whether a program drew the images.
        real_champion: Then the champion that was trained on real ones; empty where there is none.
        remark: What must be said with the decision, a sentence; empty where nothing must.
    """

    labels: npt.ArrayLike
    groups: npt.ArrayLike
    candidate: GateModel | None
    baseline: npt.ArrayLike
    champion: GateModel | None = None
    best_ever: GateModel | None = None
    blessed: bool = True
    blessing_reason: str = ""
    answers: bool = True
    answers_reason: str = ""
    disjointness: Disjointness = "disjoint"
    disjointness_reason: str = ""
    group_unit: str = "patient"
    look: int = 1
    incomparable: str = ""
    drawn: bool = False
    real_champion: str = ""
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The candidate against one other model.

    Attributes:
        against: `baseline`, `champion` or `best_ever`.
        name: The other model's name.
        result: Both figures and their difference, each with its interval.
        groups: Test groups compared on.
        left_out: Test groups left out because the other model was trained on them.
        smallest_detectable: Smallest true difference that this comparison could have found (80 % power), None
            where there is no interval.
        look: At which the limits decide: that of the test split; 1 against the colour baseline, where the gate has
            promoted the champion.
        confidence: Of the limits that decide, as that look asks for.
        low: Lower limit of the difference at that confidence; None likewise.
        high: Upper limit likewise.
        unpaired: Groups left out because only one of both models was measured on them.
    """

    against: str
    name: str
    result: PairedDifference
    groups: int
    left_out: int
    smallest_detectable: float | None
    look: int
    confidence: float
    low: float | None
    high: float | None
    unpaired: int = 0


@dataclasses.dataclass(frozen=True)
class Chance:
    """How likely a model that is truly better by `difference` would have been promoted."""

    difference: float
    chance: float


@dataclasses.dataclass(frozen=True)
class Power:
    """What the decisive comparison could have found, all other conditions met.

    Attributes:
        against: `champion`, or `baseline` for a first model.
        name: The other model's name.
        criterion: `better` or `non-inferior`.
        margin: Of `non-inferior`; 0 for `better`.
        standard_error: Of the paired difference.
        chances: One for each of `GAINS`.
    """

    against: str
    name: str
    criterion: str
    margin: float
    standard_error: float
    chances: tuple[Chance, ...]


@dataclasses.dataclass(frozen=True)
class Check:
    """One condition of the gate, for the report's list.

    Attributes:
        code: Its code; the refusal's code where it does not hold.
        passed: Whether it holds.
        detail: What was found, one sentence.
    """

    code: str
    passed: bool
    detail: str


@dataclasses.dataclass(frozen=True)
class GateDecision:
    """The gate's answer.

    Attributes:
        decision: `promoted` or `refused`.
        code: `first_model`, `better`, `non_inferior`; or `leaky_split`, `not_provably_disjoint`,
            `drawn_data`, `below_floors`, `does_not_answer`, `too_few_groups`, `no_interval`, `baseline_not_beaten`,
            `worse`, `not_distinguishable`, `inferior_to_champion`, `inferior_to_best_ever`, `weak_evidence`.
        reason: One sentence with the figures.
        metric: Primary metric: `auc` or `macro_f1`.
        checks: Every condition, in order; the first that failed gave the code.
        comparisons: Those that could be made, also where the model was refused for another reason.
        weak_evidence: A comparison that counted was pooled over classes with too few groups.
        smallest_detectable: Against the champion; for a first model against an independent one as precise as
            it.
        becomes_best_ever: Promoted, and not below the best model so far on the same patches.
        look: Which look at the test split this was.
        confidence: Of the limits that decided at this look.
        power: What the decisive comparison could have found; None where it has no interval or could not promote.
    """

    decision: Literal["promoted", "refused"]
    code: str
    reason: str
    metric: str
    checks: tuple[Check, ...]
    comparisons: tuple[Comparison, ...]
    weak_evidence: bool
    smallest_detectable: float | None
    becomes_best_ever: bool
    look: int
    confidence: float
    power: Power | None

    def to_json(self) -> dict[str, Any]:
        """The decision as plain JSON values; what is undefined (NaN) becomes null."""
        document: dict[str, Any] = json_documents.plain(self)
        return document
