"""What augmentation a recipe asks for, and whether the label survives it. The layers are in augmentation_layers."""

from __future__ import annotations

import dataclasses
from typing import Any

from components.core.field_checks import as_number, boolean, choice, known_keys, number
from components.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of each training image; all zero is none. Evaluation and serving never see them.

    Attributes:
        flip: Mirror left-right and top-bottom, each with probability 1/2.
        rotate90: Turn by 0, 90, 180 or 270 degrees with equal chance; images that are not square by 0 or 180, unless
            the model takes square crops of them: those are turned after the crop.
        rotation: Largest turn about the centre in degrees, either way; what comes in from outside is mirrored.
        translation: Largest shift as a fraction of the side, either way; what comes in from outside is mirrored.
        contrast: Contrast factor is drawn from 1 - contrast to 1 + contrast, about the image's own channel means.
        brightness: Shift of all channels, drawn from -brightness to brightness as a fraction of 255.
        stain: Strength s of the jitter in HED space: every stain's density is multiplied by a factor from 1 - s to
            1 + s and shifted by -s to s. Tellez et al. 2019 (doi 10.1016/j.media.2019.101544) call s = 0.05
            HED-light and s = 0.2 HED-strong.
    """

    flip: bool = False
    rotate90: bool = False
    rotation: float = 0.0
    translation: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    stain: float = 0.0

    def __post_init__(self) -> None:
        """Checks every strength; raises UsageError."""
        for name in ("flip", "rotate90"):
            boolean(f"augmentation.{name}", getattr(self, name))
        for name, high in LIMITS.items():
            object.__setattr__(self, name, number(f"augmentation.{name}", getattr(self, name), 0, high))

    @property
    def active(self) -> bool:
        """Whether anything is changed at all."""
        return self != Augmentation()


LIMITS = {"rotation": 180.0, "translation": 0.5, "contrast": 0.9, "brightness": 0.5, "stain": 0.3}
"""Largest strength of each change."""

PRESETS = {
    "none": Augmentation(),
    "light": Augmentation(flip=True, rotate90=True),
    "standard": Augmentation(flip=True, rotate90=True, contrast=0.1, brightness=0.05, stain=0.05),
    "strong": Augmentation(flip=True, rotate90=True, rotation=15.0, contrast=0.2, brightness=0.1, stain=0.1),
    "breakhis": Augmentation(flip=True, rotate90=True, rotation=36.0, contrast=0.2),
}
"""`breakhis` is RandomFlip, RandomRotation(0.1) and RandomContrast(0.2) as in the usual BreakHis recipes, and quarter
turns."""


def from_value(value: Any) -> Augmentation:
    """Reads the `augmentation` field of a recipe.

    Args:
        value: Name of a preset, a mapping of fields with or without `preset` to start from, or an `Augmentation`.

    Raises:
        UsageError: Unknown preset or field, or a strength out of range.
    """
    if isinstance(value, Augmentation):
        return value
    if value is None or isinstance(value, str):
        return PRESETS[choice("augmentation", value or "none", tuple(PRESETS))]
    fields = known_keys("augmentation", value, {"preset", *(f.name for f in dataclasses.fields(Augmentation))})
    base = PRESETS[choice("augmentation.preset", fields.pop("preset", "none"), tuple(PRESETS))]
    return dataclasses.replace(base, **{k: as_number(v) for k, v in fields.items()})


def check_label_region(
    augmentation: Augmentation,
    height: int,
    width: int,
    region: tuple[int, int, int, int] | None,
    *,
    crop: int | None = None,
) -> None:
    """Refuses whatever could take part of what the label speaks of out of the image.

    Flips and turns map the image onto itself about its centre, so the region must lie about the centre, where a
    turn by any angle leaves it in the image. Shifts and crops must leave all of it inside.

    Args:
        augmentation: What training is to do.
        height: Of the stored image, in pixels.
        width: Likewise.
        region: (left, top, width, height) in stored pixels; None where the label speaks of the whole image, then
            every augmentation is allowed.
        crop: Side of the square random crops that the model takes, None for none.

    Raises:
        UsageError: The region could leave the image; names the field and its largest harmless value.
    """
    if region is None:
        return
    left, top, wide, high = region
    margins = (left, width - left - wide, top, height - top - high)
    where = f"the label speaks of the {wide}x{high} pixels at ({left}, {top}) of {width}x{height} only"
    if min(margins) < 0:
        raise UsageError(f"{where}, which do not lie inside the image.", "Check the adapter's label_region.")
    turned = [n for n in ("flip", "rotate90", "rotation") if getattr(augmentation, n)]
    if turned and not (margins[0] == margins[1] and margins[2] == margins[3]):
        raise UsageError(
            f"augmentation.{turned[0]} would move the label's region: {where}, and they are not at its centre.",
            f"Set {' and '.join(f'augmentation.{n}' for n in turned)} to {'false' if turned[0] != 'rotation' else 0}.",
        )
    # A turned region reaches as far as half its diagonal, and is shifted after the turn.
    reach = ((wide / 2) ** 2 + (high / 2) ** 2) ** 0.5 if augmentation.rotation else 0.0
    extra = (max(0.0, reach - wide / 2), max(0.0, reach - high / 2))
    if augmentation.rotation and (extra[0] > margins[0] or extra[1] > margins[2]):
        raise UsageError(
            f"augmentation.rotation could turn a corner of the label's region out of the image: {where}.",
            "Set augmentation.rotation to 0.",
        )
    room = min((min(margins[:2]) - extra[0]) / width, (min(margins[2:]) - extra[1]) / height)
    if augmentation.translation > room:
        raise UsageError(
            f"augmentation.translation is {augmentation.translation:g}, which could shift part of the label's region "
            f"out of the image: {where}.",
            f"Set it to {int(max(0.0, room) * 1000) / 1000:g} or less.",
        )
    if crop is not None:
        _check_crop(crop, height, width, region, where)
        moved = [n for n in ("rotation", "translation") if getattr(augmentation, n)]
        if moved and crop < max(height, width):
            raise UsageError(
                f"augmentation.{moved[0]} changes what options.crop leaves, at whose edge the label's region may lie; "
                f"{where}.",
                f"Set augmentation.{moved[0]} to 0, or options.crop to {max(height, width)}.",
            )


def _check_crop(crop: int, height: int, width: int, region: tuple[int, int, int, int], where: str) -> None:
    left, top, wide, high = region
    for side, start, length in ((width, left, wide), (height, top, high)):
        size = min(crop, side)
        need = max(start + length, side - start)
        if size < need:
            raise UsageError(
                f"options.crop is {crop}: a random {crop}x{crop} crop could leave part of the label's region out; "
                f"{where}.",
                f"Set options.crop to {need} or more.",
            )
