"""Formulas of docstrings, which are written as code, in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Collection

#: A formula: in double or single backticks, or in dollars, where it is LaTeX already.
SPAN = re.compile(r"``(.+?)``|`(.+?)`|\$+(.+?)\$+", re.DOTALL)

#: A formula, or a symbol with a subscript outside of one.
PIECE = re.compile(rf"{SPAN.pattern}|(?<![\w.])([A-Za-z]_\w+(?:\^\w\b|\^\{{.*?\}})?)(?![\w(])", re.DOTALL)
#: Between two formulas that are displayed together.
_JOINT = re.compile(r"\s*[,;]?\s*(with|where|and|or)?\s*")

_TOKEN = re.compile(r"\s*([A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*|\d+(?:\.\d+)?|\.\.\.?|[<>=!]=|->|\S)")
_SIGNS = {
    "...": r"\dots ", "..": r"\dots ", "<=": r"\le ", ">=": r"\ge ", "==": "=", "!=": r"\ne ", "->": r"\to ",
    "⊔": r"\sqcup ", "⊗": r"\otimes ", "∘": r"\circ ", "·": r"\cdot ", ".": r"\cdot ", "×": r"\times ",
    "σ": r"\sigma ", "²": "^2", ":": "{:}", "{": "{", "}": "}", "<": r"\lt ", ">": r"\gt ",
    r"\sqrt{": r"\sqrt{", **{sign: sign for sign in "^+-*/=|()[],;_"},
}  # fmt: skip
#: Words that LaTeX has a command for, with its space.
_COMMANDS = {
    **{word: rf"\{word} " for word in ("alpha", "beta", "tau", "mu", "lambda", "sum", "prod", "log", "exp", "min")},
    **{word: rf"\{word} " for word in ("pi", "max", "cos", "sin", "tanh")},
    **{word: rf"\text{{ {word} }}" for word in ("if", "else", "mod", "for")},
}
#: Functions that are also written without parentheses behind them.
_FUNCTIONS = ("mean", "softmax", "logsumexp", "Re")


def latex(code: str, names: Collection[str] = ()) -> str | None:
    """Return a formula of a docstring in LaTeX; None if it has a word that is no function and none of ``names``."""
    if any(code.count(opening) != code.count(closing) for opening, closing in ("()", "[]", "{}")):
        return None
    tokens = _rooted(_TOKEN.findall(re.sub(r"\^\(([^()]*)\)", r"^{\1}", code)))
    parts = [
        _identifier(token, names, following in ("(", "[", "_")) if token[0].isascii() and token[0].isalnum()
        else _SIGNS.get(token)
        for token, following in zip(tokens, [*tokens[1:], ""], strict=True)
    ]  # fmt: skip
    return None if not parts or None in parts else "".join(map(str, parts)).strip()


def _rooted(tokens: list[str]) -> list[str]:
    """Return the tokens with braces, as LaTeX has them, instead of the parentheses behind ``sqrt``."""
    found, open_roots = [], []  # Of each open parenthesis, whether it belongs to a root.
    for before, token in zip(["", *tokens], tokens, strict=False):
        if token == "(":
            open_roots.append(before == "sqrt")
            found[-1:] = [r"\sqrt{"] if before == "sqrt" else [*found[-1:], token]
        elif token == ")":
            found.append("}" if open_roots.pop() else token)
        else:
            found.append(token)
    return found


def _identifier(token: str, names: Collection[str], called: bool) -> str | None:
    """Return a number, a symbol with its subscript, or a word."""
    head, _, tail = token.partition("_")
    if token not in names and tail and (len(head) == 1 or len(tail) <= 2):
        base = _identifier(head, names, True)
        return base and f"{base.strip()}_{{{tail if len(tail) <= 2 else _word('mathrm', tail)}}}"
    if token in _COMMANDS:
        return _COMMANDS[token]
    if len(token) == 1 or token[0].isdigit():
        return f"{token} "
    if re.fullmatch(r"[A-Za-z]\d", token):
        return f"{token[0]}_{token[1]} "
    if token in names:
        return _word("mathrm", token) + " "
    return _word("operatorname", token) + " " if called or token in _FUNCTIONS else None


def _word(command: str, word: str) -> str:
    if re.search(r"[a-z]\d", word):  # Without a space in front of the digit.
        word = rf"\text{{{word}}}"
    return rf"\{command}{{{word}}}".replace("_", r"\_")


def content(span: re.Match[str]) -> str:
    """Return the formula of a match of ``PIECE`` or ``SPAN``, without backticks or dollars."""
    return next(group for group in span.groups() if group)


def formula(span: re.Match[str], names: Collection[str] = ()) -> str | None:
    """Return a match of ``PIECE`` or ``SPAN`` in LaTeX; None if it is code, or a word without a subscript."""
    code = content(span)
    return (span[3] or latex(code, names)) if re.search(r"\w\W|\W\w|^[A-Za-z]_", code) else None


def displayed(text: str, names: Collection[str] = ()) -> tuple[str, int, int]:
    """Return the first formula and those that belong to it in LaTeX, a row for each, and where they begin and end."""
    rows, start, end = "", 0, 0
    for span in SPAN.finditer(text):
        joint, found = _JOINT.fullmatch(text, end, span.start()), formula(span, names)
        if rows and (joint is None or found is None):
            break
        if found is not None:
            word = rf"\text{{{joint[1]} }}" if joint and joint[1] else ""
            start, end = (start if rows else span.start()), span.end()
            rows += rf" \\ & {word}{found}" if rows else found
    return (f"& {rows}" if r"\\" in rows else rows), start, end


def symbols(doc: str) -> set[str]:
    """Return the words to which a docstring gives a value, as ``ib`` by "ib = ceil(D/nb)"."""
    return set(re.findall(r"(?<![\w.])([A-Za-z][A-Za-z0-9]+) = ", doc))


def statement_of_l(doc: str) -> list[str]:
    """Return what a docstring says after "l = ", up to the end of each sentence or part of one."""
    text = " ".join(doc.partition("\nArgs:")[0].split())
    return [found.strip() for found in re.findall(r"(?<![\w`])l = (.+?)(?=; |;$|\. |\.$|$| - \")", text)]
