"""Applies fusionkit's conformance kit to published fusion modules and remakes ``docs/published.md``.

Every package has a file ``NAME.toml`` here, which says what is installed and checked, and an adapter
``NAME_adapter.py``.  It is installed into a virtual environment of its own, which also sees the packages of the
environment that runs this script, above all fusionkit and torch.  What was found is written to
``results/NAME.json``, and the page is made from all of these files.

Needs fusionkit and a package index.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "published.md"
INTRODUCTION = HERE / "introduction.md"

#: The rules that are applied: those about what a module computes and keeps, none about fusionkit's own interface.
RULES = {
    "Values and shapes": (
        "n_matches_output",
        "forward_shape",
        "leading_dims",
        "empty_batch",
        "single_view",
        "all_inputs_matter",
        "noncontiguous",
        "no_input_mutation",
    ),
    "Rows and views": ("batch_independence", "permutation", "linear", "algebraic"),
    "Absent views": (
        "mask_all_present",
        "mask_content",
        "mask_restriction",
        "mask_none_entry",
        "mask_permutation",
        "mask_batch",
        "mask_empty_row",
        "mask_functional",
    ),
    "Numbers": ("dtype_preserved", "device_preserved", "nonfinite", "extreme_values", "autocast"),
    "Gradients": (
        "all_parameters_get_grad",
        "gradcheck",
        "gradgradcheck",
        "forward_ad",
        "partial_requires_grad",
        "functional",
        "activation_checkpoint",
    ),
    "Randomness and state": (
        "deterministic",
        "stochastic",
        "train_eval",
        "rng_isolation",
        "idempotent_calls",
        "parameters_stable",
        "no_grad",
        "no_leak",
        "thread_safety",
    ),
    "Saving and moving": (
        "state_dict",
        "safetensors",
        "weights_only",
        "pickle_deepcopy",
        "to_moves_everything",
        "instances_independent",
    ),
    "Tracing": ("fake_tensor", "compile_fullgraph", "compile_dynamic", "export", "mask_compiled", "mask_exported"),
}

#: Run in the environment of a package: prints the versions and the stand-ins.
ABOUT = """
import json, platform, sys, warnings
from importlib.metadata import version
warnings.simplefilter("ignore")
import adapter
__import__(sys.argv[1])
print(json.dumps({
    "python": platform.python_version(),
    "versions": {name: version(name) for name in ["torch", *sys.argv[2:]]},
    "stand_ins": adapter.STAND_INS,
}))
"""
#: Imports the package as the adapter does, with stand-ins, runs a snippet, and prints the first line of its error.
SNIPPET = """
import sys, warnings
warnings.simplefilter("ignore")
__import__(sys.argv[1])
try:
    exec(compile(sys.stdin.read(), "snippet", "exec"))
except Exception as error:
    print(f"{type(error).__name__}: {str(error).splitlines()[0]}")
"""


def packages() -> dict[str, dict[str, Any]]:
    """Return the contents of the TOML files by the names of the packages."""
    return {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("*.toml"))}


# ---------------------------------------------------------------------- what is found


def environment(folder: Path, requirements: Sequence[str]) -> Path:
    """Make a virtual environment over the running one unless it is there, with the requirements; return its Python."""
    scripts = Path(sysconfig.get_path("scripts", "venv", {"base": str(folder)}))
    python = scripts / Path(sys.executable).name
    made = folder / "requirements.json"
    if made.exists() and json.loads(made.read_text(encoding="utf-8")) == requirements:
        return python
    venv.create(folder, clear=True, symlinks=os.name != "nt")
    site = sysconfig.get_path("purelib", "venv", {"base": str(folder)})
    Path(site, "first.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps"]
    constraints = HERE.parents[1] / "constraints.txt"
    # Also what the running environment has: else a package would be taken from there, in any version.
    _output([*install, "--ignore-installed", "-c", str(constraints), *requirements], "")
    made.write_text(json.dumps(requirements), encoding="utf-8")
    return python


def measure(
    name: str, package: Mapping[str, Any], work: Path, verdicts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what the kit finds in the modules of a package, or the ``problem`` that prevents it.

    Args:
        name: of the TOML file.
        package: its contents.
        work: where the environment is made.
        verdicts: class of an adapter -> the verdicts on all rules; a class that it lacks is checked.
    """
    try:
        python = environment(work / name, package["requirements"])
        names = [re.split(r"[=<>\[]", requirement)[0] for requirement in package["requirements"]]
        found = json.loads(_output([str(python), "-c", ABOUT, f"{name}_adapter", *names], ""))
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        return {"problem": _scrubbed(lines[-1] if lines else f"exit status {error.returncode}", work)}
    modules = []
    for module in package["modules"]:
        print(f"{name}: {module['name']}", file=sys.stderr, flush=True)
        snippets = [_run_snippet(python, name, snippet["code"], work) for snippet in module.get("snippets", [])]
        rules = verdicts.get(module["class"]) or _check(python, f"{name}_adapter:{module['class']}", work)
        modules.append({"class": module["class"], "rules": rules, "snippets": snippets})
    return {**found, "modules": modules}


def _check(python: Path, target: str, work: Path) -> dict[str, dict[str, Any]]:
    """Run ``fusionkit check``; return its verdict on every rule."""
    report = work / "report.json"
    report.unlink(missing_ok=True)
    rules = [rule for group in RULES.values() for rule in group]
    select = [argument for rule in rules for argument in ("--select", rule)]
    command = [str(python), "-m", "fusionkit", "check", target, *select, "--json", str(report)]
    done = subprocess.run(command, env=_env(), stdout=subprocess.PIPE, text=True, check=False)
    if not report.exists():
        raise RuntimeError(f"fusionkit check should write a report on {target}; found:\n{done.stdout}")
    results = json.loads(report.read_text(encoding="utf-8"))["results"]
    return {rule: _verdict([one for one in results if one["check"] == rule], work) for rule in rules}


def _verdict(results: Sequence[Mapping[str, Any]], work: Path) -> dict[str, Any]:
    """Return whether a rule holds, fails or has no verdict, or None, with the shortest case that shows it."""
    words = {"failed": "fails", "error": "no verdict", "passed": "holds"}
    statuses = [result["status"] for result in results]
    status = next((status for status in words if status in statuses), None)
    if status in (None, "passed"):
        return {"verdict": words.get(str(status))}
    shortest = min((one for one in results if one["status"] == status), key=lambda one: len(one["case"]))
    cases = {"cases": statuses.count(status), "of": len(statuses) - statuses.count("skipped")}
    return {
        "verdict": words[str(status)],
        "case": shortest["case"],
        "reason": _scrubbed(shortest["reason"], work),
        **cases,
    }


def _run_snippet(python: Path, name: str, code: str, work: Path) -> str:
    """Return what a snippet prints."""
    return _scrubbed(_output([str(python), "-c", SNIPPET, f"{name}_adapter"], code), work)


def _output(command: Sequence[str], text: str) -> str:
    return subprocess.run(command, env=_env(), input=text, capture_output=True, text=True, check=True).stdout


def _env() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "COLUMNS": "200"}


def _scrubbed(text: str, work: Path) -> str:
    """Return a text without the folders of this machine; addresses stay."""
    text = re.sub(r"[^\s('\"]*site-packages/", "", text.replace(str(work), ""))
    return re.sub(r"(?<![:/\w])/(?:[\w.+-]+/)+", "", text)


# ---------------------------------------------------------------------- the page


def page(introduction: str, given: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page: the introduction, the table of all modules, and a section for every package."""
    rules = "\n".join(f"- {group}: {_codes(names)}" for group, names in RULES.items())
    rows = [row for name in given for row in _rows(given[name], found[name])]
    head = ["package", "version", "module", "rules that hold", "rules that fail"]
    table = "\n".join(map(_line, [head, ["---"] * len(head), *rows]))
    sections = [_section(name, given[name], found[name]) for name in given]
    return "\n\n".join([introduction.strip().replace("{rules}", rules).replace("{table}", table), *sections]) + "\n"


def _rows(given: Mapping[str, Any], found: Mapping[str, Any]) -> Iterable[list[str]]:
    link = f"[{given['title']}](#{given['title'].lower()})"
    if "problem" in found:
        yield [link, "", "not installed", "", ""]
        return
    for module, result in zip(given["modules"], found["modules"], strict=True):
        count = [len(_of(result["rules"], verdict)) for verdict in ("holds", "fails", "no verdict")]
        undecided = f" ({count[2]} without verdict)" if count[2] else ""
        most = max(map(len, _grouped(_of(result["rules"], "fails"))), default=0)
        together = f" ({most} with one error)" if most > 1 else ""
        yield [link, _version(given, found), f"`{module['name']}`", f"{count[0]}{undecided}", f"{count[1]}{together}"]


def _version(given: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    return str(found["versions"][given["title"]])


def _section(name: str, given: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    parts = [f"## {given['title']}", given["about"].strip()]
    if "problem" in found:
        return "\n\n".join([*parts, f"Could not be installed or imported: `{found['problem']}`"])
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    line = f"Python {found['python']}, {versions}; installed without their other requirements."
    if found["stand_ins"]:
        line += f" Empty stand-ins for imports that the modules do not use: {', '.join(found['stand_ins'])}."
    parts += [f"{line} The adapter: [{name}_adapter.py](published/{name}_adapter.py)."]
    for module, result in zip(given["modules"], found["modules"], strict=True):
        parts += _module(module, result)
    return "\n\n".join(parts)


def _module(given: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    rules = found["rules"]
    parts = [f"### `{given['name']}`", given["about"].strip()]
    fails, holds = _of(rules, "fails"), _of(rules, "holds")
    for snippet, output in zip(given.get("snippets", []), found["snippets"], strict=True):
        parts += [f"{snippet['says'].strip()} ({_codes(snippet['rules'])})"]
        parts += [f"```python\n{snippet['code'].strip()}\n```", f"```\n{output.strip()}\n```"]
    if fails:
        notes = {**dict.fromkeys(fails, ""), **given.get("notes", {})}
        head = ["rule that fails", "shortest case", "what came out"]
        rows = [
            [_codes(group), f"`{rules[group[0]]['case'] or 'all'}`", _reason(rules, group, notes)]
            for group in _grouped(fails)
        ]
        parts += ["\n".join(map(_line, [head, ["---"] * 3, *rows]))]
    if undecided := _of(rules, "no verdict"):
        reasons = "; ".join(f"`{rule}` ({_cell(result['reason'])})" for rule, result in undecided.items())
        parts += [f"No verdict: {reasons}."]
    parts += [f"Holds: {_codes(holds)}." if holds else "No rule holds."]
    if apart := [rule for rule, result in rules.items() if result["verdict"] is None]:
        parts += [f"Does not apply: {_codes(apart)}."]
    return parts


def _grouped(fails: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the failing rules, those together that failed with the same error."""
    groups: dict[str, list[str]] = {}
    for rule, result in fails.items():
        error = re.search(r"found (\w*Error: .*)", result["reason"])
        groups.setdefault(error[1] if error else rule, []).append(rule)
    return list(groups.values())


def _reason(rules: Mapping[str, Mapping[str, Any]], group: Sequence[str], notes: Mapping[str, str]) -> str:
    said = [notes[rule] for rule in group if notes[rule]]
    return " ".join([_cell(rules[group[0]]["reason"]) + ".", *dict.fromkeys(said)])


def _of(rules: Mapping[str, Mapping[str, Any]], verdict: str) -> dict[str, Mapping[str, Any]]:
    return {rule: result for rule, result in rules.items() if result["verdict"] == verdict}


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;").rstrip(".")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _result(name: str) -> Path:
    return HERE / "results" / f"{name}.json"


def _results(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    files = {name: _result(name) for name in names}
    missing = {"problem": "not tried"}
    return {name: json.loads(file.read_text("utf-8")) if file.exists() else missing for name, file in files.items()}


def main() -> None:
    """Check the packages that the command line names, and make the page."""
    known = packages()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(known)}; by default all")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the environments are made and stay")
    parser.add_argument(
        "--snippets", action="store_true", help="keep the verdicts that are there, run the snippets only"
    )
    parser.add_argument(
        "--page", action="store_true", help="run nothing: make the page from the results that are there"
    )
    options = parser.parse_args()
    if unknown := set(options.packages) - set(known):
        parser.error(f"no such package: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        chosen = [] if options.page else options.packages or list(known)
        for i, name in enumerate(chosen, 1):
            print(f"{name} ({i} of {len(chosen)})", file=sys.stderr, flush=True)
            before = _results([name])[name].get("modules", []) if options.snippets else []
            verdicts = {module["class"]: module["rules"] for module in before}
            text = json.dumps(measure(name, known[name], work, verdicts), indent=1)
            _result(name).write_text(text + "\n", encoding="utf-8")
    found = _results(known)
    PAGE.write_text(page(INTRODUCTION.read_text(encoding="utf-8"), known, found), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
