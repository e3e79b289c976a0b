"""Methods with trained weights for every class: they know only the classes that they were made for."""

from .method import Method


class FixedClasses(Method):
    """`known` are the class names it was made for, `rows` the places in it of those that are asked about."""

    def set_classes(self, classnames: list[str], template: str) -> None:
        """Also ValueError for classes that it was not made for; a subset is fine."""
        super().set_classes(classnames, template)
        if not hasattr(self, "known"):
            self.known = self.classnames
        unknown = [n for n in self.classnames if n not in self.known]
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no weights for {len(unknown)} classes, for example "
                f"{unknown[0]!r}; it knows the {len(self.known)} classes it was made for"
            )
        same = self.classnames == self.known  # names may repeat, as two of ImageNet's do
        self.rows = slice(None) if same else [self.known.index(n) for n in self.classnames]
