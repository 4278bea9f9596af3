"""What is known of a model without loading Keras: enough for a catalogue, for forms and for checking options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.core.field_checks import as_number, choice, known_keys, number, wrong

GREY_MEAN, GREY_STD = 180.0, 50.0
"""Grey levels are brought to about zero mean and unit deviation: rounded from the H&E patches of IDC and PCam, whose
bright background would otherwise leave all inputs of the first layer positive."""


FILES = {"weights": "weights file", "file": "SavedModel or Keras file"}
"""Kinds of options that may be a file, whose content counts, with what it holds."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One setting of a model.

    Attributes:
        name: Key in a recipe's `options`.
        kind: `float`, `int`, `choice` (among `choices`), `weights` or `file` (a word among `choices`, or a file).
        default: Value where a recipe says nothing.
        help: One line for people.
        low: Smallest number.
        high: Largest number.
        choices: Words or numbers that are allowed; empty for any number from low to high.
    """

    name: str
    kind: str
    default: float | int | str
    help: str
    low: float = 0.0
    high: float = 1.0
    choices: tuple[float | int | str, ...] = ()

    def check(self, value: Any) -> Any:
        """Gives the value back as the option's type.

        Raises:
            UsageError: Wrong type or out of range.
        """
        field = f"options.{self.name}"
        if self.kind in FILES:
            if not isinstance(value, str) or not value:
                raise wrong(field, value, f"{', '.join(map(str, self.choices))} or the path of a {FILES[self.kind]}")
            return value
        if self.kind == "choice" and isinstance(self.default, str):
            return choice(field, value, tuple(map(str, self.choices)))
        if self.choices:
            if isinstance(value, bool) or value not in self.choices:
                raise wrong(field, value, f"one of {', '.join(map(str, self.choices))}")
            return type(self.default)(value)
        return number(field, value, self.low, self.high, integer=self.kind == "int")


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """A model of the registry.

    Attributes:
        name: Name on the command line.
        title: One line for people.
        source: Where the architecture was published, and what is ours.
        input_size: (height, width) in pixels of the images that it was made for.
        n_classes: Number of classes for which `parameters` holds.
        parameters: Number of weights at `input_size`, `n_classes` and default options, trainable or not.
        options: What can be set.
        backbone_parameters: Number of weights of the part that published weights fit, 0 where there is none.
        min_size: Smallest height and width of an image, in pixels.
        views: How many symmetries evaluation averages over where a recipe does not say.
        phases: Whether it is trained by steps; else its head is fitted at once.
    """

    name: str
    title: str
    source: str
    input_size: tuple[int, int]
    n_classes: int
    parameters: int
    options: tuple[Option, ...]
    backbone_parameters: int = 0
    min_size: int = 32
    views: int = 1
    phases: bool = True

    def check_options(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """Fills in defaults and checks ranges.

        Returns:
            Every option, sorted by name.

        Raises:
            UsageError: Unknown option, wrong type or out of range.
        """
        by_name = {o.name: o for o in self.options}
        fields = known_keys("options", given or {}, by_name)
        return {n: by_name[n].check(as_option(by_name[n], fields.get(n, by_name[n].default))) for n in sorted(by_name)}


def as_option(option: Option, value: Any) -> Any:
    """Reads `1e-4` as a number unless the option wants a word; YAML's null means the word none."""
    if option.kind == "weights":
        return "none" if value is None else value
    return as_number(value)


def dropout(default: float) -> Option:
    """The option of dropout before the last layer."""
    return Option("dropout", "float", default, "Dropout before the last dense layer", 0.0, 0.9)


def l2(default: float) -> Option:
    """The option of L2 regularisation of convolution and dense kernels."""
    return Option("l2", "float", default, "L2 regularisation of the kernels", 0.0, 0.1)


def weights(default: str, *, imagenet: bool) -> Option:
    """The option of the weights to start from."""
    words = ("imagenet", "none") if imagenet else ("none",)
    return Option("weights", "weights", default, "Weights to start from, or a file with them", choices=words)
