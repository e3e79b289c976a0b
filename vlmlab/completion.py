"""Names behind the Tab key in IPython and Jupyter: models, tasks, methods, protocols, sites, and a method's settings.

`import vlmlab` adds one matcher to IPython's completer. It looks at the call around the cursor; what it offers is
asked of the rooms only then.
"""

import dataclasses
import importlib
import io
import sys
import tokenize
from collections.abc import Iterable

# verb -> argument -> where its legal values stand, "module:name" of a list, a table, or a function without arguments
VALUES = {
    "load": {"model": "vlmlab.models.load:names", "precision": "vlmlab.precision:PRECISIONS"},
    "task": {"id": "vlmlab.tasks.task:names", "protocol": "vlmlab.tasks.protocols:PROTOCOLS"},
    "fit": {"method": "vlmlab.known_names:learners"},
    "capture": {"sites": "vlmlab.capturing.sites:usual"},
}
PLACES = {"load": ("model",), "task": ("id",), "fit": ("method",), "capture": ("model", "data", "sites")}
OPEN, CLOSED = "([{", ")]}"


@dataclasses.dataclass(frozen=True)
class Call:
    """The innermost call of a function around the cursor.

    function: as it is written, "vlmlab.fit". first: its first argument, if that is a plain string. argument: the
    keyword, or the number of the place, that the cursor is in. fragment: what is typed of a string or a word; quoted:
    whether it is in a string.
    """

    function: str
    first: str | None
    argument: str | int
    fragment: str
    quoted: bool


def register() -> None:
    """Add the matcher to the IPython that runs, if one does and its completer takes matchers (8.6 and newer)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if hasattr(ipython, "get_ipython") else None
    matchers = getattr(getattr(shell, "Completer", None), "custom_matchers", None)
    if matchers is None or any(getattr(m, "vlmlab", False) for m in matchers):
        return
    from IPython.core.completer import context_matcher

    @context_matcher(identifier="vlmlab")
    def matcher(context):
        return result(context, shell.user_ns)

    matcher.vlmlab = True
    matchers.append(matcher)


def result(context, names: dict) -> dict:
    """What IPython's matcher interface (version 2) asks for; nothing where anything is unclear."""
    from IPython.core.completer import SimpleCompletion

    lines = context.full_text.split("\n")[: context.cursor_line + 1]
    lines[-1] = lines[-1][: context.cursor_position]
    found, fragment = [], ""
    try:
        if (call := call_at("\n".join(lines))) and (verb := verb_of(call.function, names)):
            fragment = call.fragment
            found = list(offered(verb, call))
    except Exception:  # a Tab never fails: whatever is wrong shows when the call is made
        found = []
    settings = bool(found) and found[0].endswith("=")  # they stand beside what else may be typed there
    return {
        "completions": [SimpleCompletion(t, type="param" if settings else "value") for t in found],
        "matched_fragment": fragment,
        "suppress": bool(found) and not settings,
        "ordered": True,
    }


def verb_of(function: str, names: dict) -> str | None:
    """The verb of vlmlab that a dotted name of the user's is, without running anything."""
    root, _, rest = function.partition(".")
    thing = names.get(root)
    if rest:
        return rest if thing is sys.modules.get("vlmlab") and rest in VALUES else None
    home, name = getattr(thing, "__module__", None) or "", getattr(thing, "__name__", None)
    return name if home.startswith("vlmlab.") and name in VALUES else None


def offered(verb: str, call: Call) -> Iterable[str]:
    """What may stand there: values of an argument, or settings of the method that is named first."""
    if not call.quoted:
        known = settings_of(call.first) if verb == "fit" and call.first else []
        return [f"{name}=" for name in known if name.startswith(call.fragment)]
    argument = call.argument
    if isinstance(argument, int):
        places = PLACES.get(verb, ())
        argument = places[argument] if argument < len(places) else None
    source = VALUES[verb].get(argument)
    return [name for name in listed(source) if name.startswith(call.fragment)] if source else []


def listed(source: str) -> Iterable[str]:
    module, _, name = source.partition(":")
    values = getattr(importlib.import_module(module), name)
    return values() if callable(values) else values


def settings_of(method: str) -> list[str]:
    """The names of a method's Config and Options."""
    from . import registry

    cls = registry.find(method)
    return [f.name for kind in (cls.Config, cls.Options) for f in dataclasses.fields(kind)]


def call_at(text: str) -> Call | None:
    """The call that the end of a text is in; None outside one, or in a string with a prefix."""
    tokens = tokens_of(text)
    fragment, quoted = "", False
    if tokens and tokens[-1][0] == "open string":
        quoted, fragment = True, tokens.pop()[1]
    elif tokens and tokens[-1][0] == "word":
        fragment = tokens.pop()[1]
    start = opening(tokens)
    if start is None or start == 0 or tokens[start - 1][0] != "word":
        return None
    inside = tokens[start + 1 :]
    first = inside[0][1] if inside and inside[0][0] == "string" else None
    return Call(tokens[start - 1][1], first, argument_of(inside), fragment, quoted)


def opening(tokens: list[tuple[str, str]]) -> int | None:
    """Where the innermost bracket ( that is still open stands; a list inside it is looked through."""
    depth = 0
    for i in range(len(tokens) - 1, -1, -1):
        if tokens[i][1] in CLOSED and tokens[i][0] == "sign":
            depth += 1
        elif tokens[i][1] in OPEN and tokens[i][0] == "sign":
            if depth:
                depth -= 1
            elif tokens[i][1] == "(" and i and tokens[i - 1][0] == "word":
                return i
    return None


def argument_of(inside: list[tuple[str, str]]) -> str | int:
    """The keyword, or the number of the place, of the argument that a list of tokens ends in."""
    depth, place, keyword = 0, 0, None
    for i, (kind, text) in enumerate(inside):
        if kind != "sign":
            continue
        depth += (text in OPEN) - (text in CLOSED)
        if depth == 0 and text == ",":
            place, keyword = place + 1, None
        elif depth == 0 and text == "=" and i and inside[i - 1][0] == "word":
            keyword = inside[i - 1][1]
    return keyword or place


def tokens_of(text: str) -> list[tuple[str, str]]:
    """(kind, text) of the code up to the cursor: word ("vlmlab.fit"), string, open string, sign."""
    found: list[tuple[str, str]] = []
    end = (1, 0)
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.ERRORTOKEN and token.string in "\"'":
                break  # before Python 3.12 a string that is not closed is an error token
            add(found, token)
            end = token.end
    except (tokenize.TokenError, SyntaxError, IndentationError):
        pass
    rest = "\n".join(text.split("\n")[end[0] - 1 :])[end[1] :].lstrip()
    if rest[:1] in ('"', "'") and rest:
        found.append(("open string", rest[1:]))
    return found


def add(found: list[tuple[str, str]], token) -> None:
    if token.type == tokenize.NAME:
        if found[-2:] and found[-1] == ("sign", "."):
            kind, owner = found[-2]
            found[-2:] = [("word", f"{owner if kind == 'word' else ''}.{token.string}")]
        else:
            found.append(("word", token.string))
    elif token.type == tokenize.STRING:
        found.append(("string", token.string[1:-1]))
    elif token.type == tokenize.OP:
        found.append(("sign", token.string))
    elif token.type == tokenize.NUMBER:
        found.append(("number", token.string))
