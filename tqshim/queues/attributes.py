"""What the queues' classes are written with.

Lives here: hints that cost nothing at run time, and attributes that a subclass may have for itself.  Type checkers are
shown ``typing``'s names, and ``property``.

Invariant: a program that derives from a queue, or evaluates the hints of its methods, meets nothing that the standard
library's queues do not have.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    overridable = property
else:

    class overridable:
        """A property that gives way to an attribute of the same name."""

        def __init__(self, function: Any) -> None:
            self.function = function
            self.__doc__ = function.__doc__

        def __get__(self, instance: Any, kind: type) -> Any:
            return self if instance is None else self.function(instance)


__all__ = ["Hint", "overridable"]


class Hint:
    """Stands for a name of ``typing``, which takes 3 ms to import: a hint that is evaluated comes to ``object``."""

    def __class_getitem__(cls, item: object) -> type[object]:
        return object
