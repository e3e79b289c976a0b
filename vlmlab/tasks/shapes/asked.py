"""Questions about scenes, each with one true answer, which nobody can guess from the question."""

from ..captions import Captions
from ..questions import Questions
from .composition import COLOURS, SHAPES, Scene, scene
from .texts import COLOUR, RELATIONS, name, with_article

EDGES = {True: ("on the left", "on the right"), False: ("at the top", "at the bottom")}  # by `across`
Asked = tuple[str, str, str]  # question, answer, kind


def questions(found: Captions) -> Questions:
    """About each scene of `shapes.scenes`, a function of its id: whether something is there (yes/no); of `pairs` whether
    one stands on a side of the other (yes/no), and the colour or shape of one of them (other); of `many` how many there
    are (number), and, where it is one for all meant, a colour or shape (other)."""
    asked = [(i, *one) for i, id in enumerate(found.ids) for one in ask(scene(id))]
    owner, texts, answers, kinds = zip(*asked) if asked else ((), (), (), ())
    return Questions(
        found.ids,
        texts,
        owner,
        tuple({answer: 1} for answer in answers),
        kinds,
        read=found.read,
        content=found.content,
        flip=found.flip,
    )


def ask(of: Scene) -> list[Asked]:
    """The questions of a scene."""
    if of.kind == "pairs":
        return [existence(of), relation(of), side(of)]
    return [existence(of), *([count(of)] if of.kind == "many" else []), *attribute(of)]


def chosen(options, chance: float):
    """One of a sequence, by a number in [0, 1)."""
    return options[int(chance * len(options))]


def existence(of: Scene) -> Asked:
    """Half are there; of the others half have a colour and a shape that are there, though not together, where possible."""
    there = list(dict.fromkeys(thing.kind for thing in of.things))
    wanted, which, near = of.chances[:3]
    if wanted < 0.5:
        colour, shape = chosen(there, which)
    else:
        colours, shapes = zip(*there)
        mixed = [(c, s) for c in set(colours) for s in set(shapes) if (c, s) not in there]
        every = [(c, s) for c in range(len(COLOURS)) for s in range(len(SHAPES)) if (c, s) not in there]
        colour, shape = chosen(sorted(mixed) if mixed and near < 0.5 else every, which)
    return (
        f"is there {with_article(f'{COLOUR[colour]} {SHAPES[shape]}')}?",
        "yes" if wanted < 0.5 else "no",
        "yes/no",
    )


def relation(of: Scene) -> Asked:
    """Whether one of a pair stands where it does, or on the other side."""
    turned, true = of.chances[3] < 0.5, of.chances[4] < 0.5
    first, second = (name(thing, sized=True) for thing in (of.things[::-1] if turned else of.things))
    said = RELATIONS[of.across][turned == true]
    return f"is the {first} {said} the {second}?", "yes" if true else "no", "yes/no"


def side(of: Scene) -> Asked:
    """The colour or the shape of one of a pair, by its side."""
    k = int(of.chances[5] < 0.5)
    where, thing = EDGES[of.across][k], of.things[k]
    if of.chances[6] < 0.5:
        return f"what colour is the shape {where}?", COLOUR[thing.colour], "other"
    return f"what shape is {where}?", SHAPES[thing.shape], "other"


def count(of: Scene) -> Asked:
    """How many shapes there are, or how many of the focus."""
    if of.focus < 0:
        return "how many shapes are there?", str(len(of.things)), "number"
    if of.focus < len(COLOURS):
        found = sum(thing.colour == of.focus for thing in of.things)
        return f"how many {COLOUR[of.focus]} shapes are there?", str(found), "number"
    shape = of.focus - len(COLOURS)
    found = sum(thing.shape == shape for thing in of.things)
    return f"how many {SHAPES[shape]}s are there?", str(found), "number"


def attribute(of: Scene) -> list[Asked]:
    """The colour of a shape, or the shape of a colour, that has only one; nothing where none has."""
    found: list[Asked] = []
    for shape in sorted({thing.shape for thing in of.things}):
        colours = [thing.colour for thing in of.things if thing.shape == shape]
        if len(set(colours)) == 1:
            said = f"are the {SHAPES[shape]}s" if len(colours) > 1 else f"is the {SHAPES[shape]}"
            found.append((f"what colour {said}?", COLOUR[colours[0]], "other"))
    for colour in sorted({thing.colour for thing in of.things}):
        shapes = [thing.shape for thing in of.things if thing.colour == colour]
        if len(set(shapes)) == 1:
            said = f"are the {COLOUR[colour]} ones" if len(shapes) > 1 else f"is the {COLOUR[colour]} one"
            found.append((f"what shape {said}?", SHAPES[shapes[0]], "other"))
    return [chosen(found, of.chances[7])] if found else []
