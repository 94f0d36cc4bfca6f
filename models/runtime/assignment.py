"""Owns which features feed which input of a model."""

from __future__ import annotations

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
            names = listed(repr(port.name) for port in free)
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
            names = listed(map(repr, by_name))
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
    names = {spec.name for spec in left}
    sentences = []
    if missing:
        each = [f"{port.name!r}{near(port.name, names)}" for port in missing]
        sentences.append(f"the model takes features that the card does not list: {listed(each)}")
    if left:
        each = [f"{spec.name!r}{near(spec.name, [port.name for port in free])}" for spec in left]
        sentences.append(f"the card lists features that the model does not take: {listed(each)}")
    mends = [_mend(port, left, specs) for port in missing]
    if not missing:
        mends = [f'leave them out, or say which input they are columns of, input = "{free[0].name}"'] if free else []
    return "; ".join(sentences) + (f": {listed(mends, '; ')}" if mends else "")


def _mend(port: Port, left: Sequence[Spec], specs: Sequence[Spec]) -> str:
    """The card that would feed an input."""
    told = next((spec for spec in specs if spec.tensor is not None and -1 in spec.tensor.shape), None)
    if told is not None and told.tensor is not None and told.tensor.mask is None and "mask" in port.name.lower():
        return f'{described(port)} may be the mask of {told.name!r}, mask = "{port.name}"'
    columns = ""
    if len(port.shape) == 2 and port.shape[1] != 1 and any(spec.tensor is None for spec in left):
        columns = f', or its columns, each with input = "{port.name}"'
    return f"{described(port)} takes {proposal(port)}{columns}"
