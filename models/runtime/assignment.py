"""Owns which features feed which input of a model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from failsoft.models.runtime.proposals import described, listed, proposal
from failsoft.models.runtime.signature import Mismatch, Port
from failsoft.schemas.config.refusal import near
from failsoft.schemas.features.spec import Spec


@dataclass(frozen=True, slots=True)
class Assignment:
    """The features of each input.

    Attributes:
        ports: the inputs that features feed, in the model's order.
        features: for each of them, at least one feature, in the card's order.
        masks: the input of the mask of a feature, for each feature that has one.
    """

    ports: Sequence[Port]
    features: Mapping[str, Sequence[Spec]]
    masks: Mapping[str, Port]


def assign(inputs: Sequence[Port], specs: Sequence[Spec]) -> Assignment:
    """Each feature goes to the input that it names, else to the input of its name, else to the only one.

    Raises Mismatch if a feature or an input is left.
    """
    masks = _masks(inputs, specs)
    of_masks = {port.name for port in masks.values()}
    free = [port for port in inputs if port.name not in of_masks]
    groups: dict[str, list[Spec]] = {port.name: [] for port in free}
    left: list[Spec] = []
    for spec in specs:
        named = spec.name in groups or spec.name in of_masks or len(free) != 1
        target = spec.input or (spec.name if named else free[0].name)
        if target in groups:
            groups[target].append(spec)
        elif target in of_masks:
            raise Mismatch(f"feature {spec.name!r} feeds the input {target!r}, which is the mask of another feature")
        elif spec.input is not None:
            names = listed(free, lambda port: repr(port.name))
            raise Mismatch(
                f'feature {spec.name!r} has input = "{target}"{near(target, groups)}, and the model has no such input: '
                f"it has {names}"
            )
        else:
            left.append(spec)
    missing = [port for port in free if not groups[port.name]]
    if missing or left:
        raise Mismatch(_words(missing, left, free, specs))
    return Assignment(free, groups, masks)


def _masks(inputs: Sequence[Port], specs: Sequence[Spec]) -> dict[str, Port]:
    by_name = {port.name: port for port in inputs}
    masks: dict[str, Port] = {}
    by_mask: dict[str, str] = {}
    for spec in specs:
        name = None if spec.tensor is None else spec.tensor.mask
        if name is None:
            continue
        if name not in by_name:
            names = listed(list(by_name), repr)
            raise Mismatch(
                f'feature {spec.name!r} has mask = "{name}"{near(name, by_name)}, and the model has no such input: it '
                f"has {names}"
            )
        other = by_mask.setdefault(name, spec.name)
        if other != spec.name:
            raise Mismatch(
                f'features {other!r} and {spec.name!r} both have mask = "{name}": an input can tell only of one of them'
            )
        masks[spec.name] = by_name[name]
    return masks


def _words(missing: Sequence[Port], left: Sequence[Spec], free: Sequence[Port], specs: Sequence[Spec]) -> str:
    """What is left of the model and of the card, and how each could be mended."""
    inputs, features = [port.name for port in free], [spec.name for spec in left]
    sentences = []
    if missing:
        names = listed(missing, lambda port: f"{port.name!r}{near(port.name, features)}")
        sentences.append(f"the model takes features that the card does not list: {names}")
    if left:
        names = listed(left, lambda spec: f"{spec.name!r}{near(spec.name, inputs)}")
        sentences.append(f"the card lists features that the model does not take: {names}")
    mend = listed(missing, lambda port: _mend(port, left, specs), "; ")
    if not missing and free:
        mend = f'leave them out, or say which input they are columns of, input = "{free[0].name}"'
    return "; ".join(sentences) + (f": {mend}" if mend else "")


def _mend(port: Port, left: Sequence[Spec], specs: Sequence[Spec]) -> str:
    """The card that would feed an input."""
    told = next((spec for spec in specs if spec.tensor is not None and -1 in spec.tensor.shape), None)
    if told is not None and told.tensor is not None and told.tensor.mask is None and "mask" in port.name.lower():
        return f'{described(port)} may be the mask of {told.name!r}, mask = "{port.name}"'
    alike = difflib.get_close_matches(port.name, [spec.name for spec in left], n=1)
    if alike:
        return f'{described(port)} takes the feature {alike[0]!r} if that has input = "{port.name}"'
    columns = ""
    if len(port.shape) == 2 and port.shape[1] != 1 and any(spec.tensor is None for spec in left):
        columns = f', or its columns, each with input = "{port.name}"'
    return f"{described(port)} takes {proposal(port)}{columns}"
