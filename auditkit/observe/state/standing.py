"""Whether models and optimizers are, object for object, what they were at the step before.

Training changes what tensors hold; which tensors there are, and every flag and number beside
them, nearly always stay. All of that is asked in one go: as long as it stands, no part has to be
looked at by itself. The numbers of parameter groups, which a scheduler moves at every step, are
asked for apart. Where something else moves at every step, asking is given up for a while, and every
part looks for itself.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from auditkit.observe.state.glance import Fields, Glance, are_same

_ATTRIBUTES: Any = operator.attrgetter("__dict__")
_REQUIRES_GRAD: Any = operator.attrgetter("requires_grad")
_PARAMS: Any = operator.itemgetter("params")

#: What torch itself keeps on every module and on every optimizer, but for what is state or leads
#: there.
_OF_MODULES = frozenset(vars(nn.Module())) - {"training", "_modules", "_parameters", "_buffers"}
_OF_OPTIMIZERS = frozenset(vars(SGD([torch.zeros(1)], lr=0.1))) - {"state", "param_groups"}

#: Steps in a row after which something moves always, and steps that are left out then, at most.
_PATIENCE, _LONGEST = 3, 512


class Standing:
    """What some models and optimizers consist of.

    Args:
        optimizers: The optimizers, those that others hold included.

    Attributes:
        numbers_hold: Whether the numbers of parameter groups were what they were, too, when
            :meth:`holds` was asked last.
    """

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        self._optimizers = list(optimizers)
        self._glance: Glance | None = None
        self._fields = Fields((), ())
        self._owners: list[object] = []
        self._layers: list[nn.Module] = []
        self._parameters: list[Tensor] = []
        #: All that has a length but the dicts of the glance, and the lengths.
        self._sized: list[Collection[object]] = []
        self._sizes: list[int] = []
        #: All that is compared by identity, but what is in these dicts.
        self._seen: list[object] = []
        #: With the groups, whose numbers come first.
        self._whole = Glance(())
        self.numbers_hold = False
        self._held: list[Mapping[Any, Any]] = []
        self._groups: list[dict[str, Any]] = []
        self._lists: list[list[Any]] = []
        self._misses = self._left_out = 0

    def note(self, layers: Iterable[nn.Module], parameters: Iterable[Tensor]) -> None:
        """From now on, what there is now.

        Args:
            layers: Every layer of the models.
            parameters: Every parameter.
        """
        if self._left_out:
            return
        self._layers, self._parameters = list(layers), list(parameters)
        self._owners = [*self._layers, *self._optimizers]
        attributes: list[dict[str, Any]] = list(map(_ATTRIBUTES, self._owners))
        self._fields = Fields(attributes, map(_looked_at, self._owners))
        held = self._held = []
        for layer in self._layers:
            held += (layer._modules, layer._parameters, layer._buffers)
        self._lists, self._groups = [], []
        for optimizer in self._optimizers:
            groups = optimizer.param_groups
            self._groups += groups
            self._lists += (groups, *map(_PARAMS, groups))
            held += (optimizer.state, *optimizer.state.values())
        self._glance = Glance(held)
        self._sized = [*self._lists, *attributes]
        self._sizes = list(map(len, self._sized))
        self._seen = [*self._objects()]
        self.note_numbers()

    def note_numbers(self) -> None:
        """From now on, the numbers that there are now; all else is what it was."""
        self._whole = Glance([*self._groups, *self._held])

    def forget(self) -> None:
        """There is something that identity does not tell: every part looks for itself."""
        self._glance = None

    def owns(self, objects: Iterable[object]) -> bool:
        """Whether the attributes of these objects are among what was noted."""
        own = {*map(id, self._layers), *map(id, self._optimizers)}
        return self._glance is not None and own.issuperset(map(id, objects))

    def holds(self) -> bool:
        """Whether everything is what it was; False may also be said where nobody has looked."""
        if self._glance is None or self._left_out:
            self._left_out = max(self._left_out - 1, 0)
            return False
        try:
            is_same = list(map(len, self._sized)) == self._sizes and are_same(
                self._objects(), self._seen
            )
        except KeyError:  # an attribute of another name
            is_same = False
        self.numbers_hold = is_same and self._whole.holds()
        is_same = self.numbers_hold or (is_same and self._glance.holds())
        self._misses = 0 if is_same else self._misses + 1
        if self._misses > _PATIENCE:
            self._glance, self._left_out = None, min(2**self._misses, _LONGEST)
        return is_same

    def _objects(self) -> Iterator[object]:
        """What is compared by identity; as much of it as long as all lists have their lengths."""
        return chain(
            map(type, self._layers),
            map(_ATTRIBUTES, self._owners),
            self._fields.objects(),
            map(_PARAMS, self._groups),
            chain.from_iterable(self._lists),
            map(_REQUIRES_GRAD, self._parameters),
        )


def _looked_at(owner: object) -> list[str]:
    bookkeeping = _OF_OPTIMIZERS if isinstance(owner, Optimizer) else _OF_MODULES
    return [name for name in vars(owner) if name not in bookkeeping]
