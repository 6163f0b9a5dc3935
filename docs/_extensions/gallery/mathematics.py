"""Formulas of docstrings, which are written as code, in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Collection

#: A formula: in double or single backticks, or in dollars, where it is LaTeX already.
SPAN = re.compile(r"``(.+?)``|`(.+?)`|\$+(.+?)\$+", re.DOTALL)

_TOKEN = re.compile(r"\s*([A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*|\d+(?:\.\d+)?|\.\.\.?|[<>=!]=|->|\S)")
_SIGNS = {
    "...": r"\dots ", "..": r"\dots ", "<=": r"\le ", ">=": r"\ge ", "==": "=", "!=": r"\ne ", "->": r"\to ",
    "⊔": r"\sqcup ", "⊗": r"\otimes ", "∘": r"\circ ", "·": r"\cdot ", ".": r"\cdot ", "×": r"\times ",
    "σ": r"\sigma ", "²": "^2", ":": "{:}", "{": "{", "}": "}", "<": r"\lt ", ">": r"\gt ",
    **{sign: sign for sign in "+-*/=|()[],;_"},
}  # fmt: skip
#: Words that LaTeX has a command for, with its space.
_COMMANDS = {
    **{word: rf"\{word} " for word in ("alpha", "beta", "tau", "mu", "lambda", "sum", "prod", "log", "exp", "min")},
    **{word: rf"\{word} " for word in ("max", "cos", "sin", "tanh")},
    **{word: rf"\text{{ {word} }}" for word in ("if", "else", "mod", "for")},
}
#: Functions that are also written without parentheses behind them.
_FUNCTIONS = ("mean", "softmax", "logsumexp", "Re")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def latex(code: str, names: Collection[str] = ()) -> str | None:
    """Return a formula of a docstring in LaTeX; None if it has a word that is no function and none of ``names``."""
    tokens, parts, open_brackets, powers = _TOKEN.findall(code), [], [], []
    for i, token in enumerate(tokens):
        called = tokens[i + 1 : i + 2] in (["("], ["["], ["_"])
        part = _identifier(token, names, called) if token[0].isascii() and token[0].isalnum() else _SIGNS.get(token)
        if token == "^":
            # A power in parentheses: LaTeX wants braces in place of them.
            part = "^"
            if tokens[i + 1 : i + 2] == ["("]:
                powers.append(len(open_brackets))
        elif token in _CLOSING:
            open_brackets.append(token)
            if powers and powers[-1] == len(open_brackets) - 1 and tokens[i - 1] == "^":
                part = "{"
        elif token in _CLOSING.values():
            if not open_brackets or _CLOSING[open_brackets.pop()] != token:
                return None
            if powers and powers[-1] == len(open_brackets):
                powers.pop()
                part = "}"
        if part is None:
            return None
        parts.append(part)
    return None if open_brackets or not parts else "".join(parts).strip()


def _identifier(token: str, names: Collection[str], called: bool) -> str | None:
    """Return a number, a symbol with its subscript, or a word."""
    head, _, tail = token.partition("_")
    if token not in names and tail and (len(head) == 1 or len(tail) <= 2):
        base = _identifier(head, names, True)
        return base and f"{base.strip()}_{{{tail if len(tail) <= 2 else _word('mathrm', tail)}}}"
    if token in _COMMANDS:
        return _COMMANDS[token]
    if len(token) == 1 or token.isdigit() or token.replace(".", "").isdigit():
        return f"{token} "
    if re.fullmatch(r"[A-Za-z]\d", token):
        return f"{token[0]}_{token[1]} "
    if token in names:
        return _word("mathrm", token) + " "
    return _word("operatorname", token) + " " if called or token in _FUNCTIONS else None


def _word(command: str, word: str) -> str:
    return rf"\{command}{{{word}}}".replace("_", r"\_")


def symbols(doc: str) -> set[str]:
    """Return the words to which a docstring gives a value, as ``ib`` by "ib = ceil(D/nb)"."""
    return set(re.findall(r"(?<![\w.])([A-Za-z][A-Za-z0-9]+) = ", doc))


def statement_of_l(doc: str) -> list[str]:
    """Return what a docstring says after "l = ", up to the end of each sentence or part of one."""
    text = " ".join(doc.partition("\nArgs:")[0].split())
    return [found.strip() for found in re.findall(r"(?<![\w`])l = (.+?)(?=; |;$|\. |\.$|$| - \")", text)]
