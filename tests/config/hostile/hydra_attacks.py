"""Attacks by the ``hydra`` node: untrusted folders that make plain Hydra run something."""

from __future__ import annotations

from typing import NamedTuple

from tests.config.hostile.attacks import CALL, EVIL, experiment


class Attack(NamedTuple):
    """An untrusted folder that makes plain Hydra run something, and what our message names."""

    files: dict[str, str]
    overrides: list[str]
    key: str
    found: str
    multirun: bool = False
    config_name: str = "config"
    #: Hydra 1.4 would refuse it as well: then nothing is to be shown.
    on_1_4: bool = True
    #: The application instantiates its groups, as applications do.
    builds: bool = False


def logger(handler: str, section: str = "job_logging", extra: str = "") -> dict[str, str]:
    return {
        f"hydra/{section}/evil.yaml": (
            f"version: 1\nhandlers:\n  evil:\n{handler}\nroot:\n  level: INFO\n  handlers: [evil]\n"
            f"disable_existing_loggers: false\n{extra}"
        )
    }


TRIPWIRE = "'@TRIPWIRE@'"
BATCH = "_target_: hydra_plugins.batch.BatchLauncher\n"

ATTACKS: dict[str, Attack] = {
    "callback": Attack(
        experiment(f"hydra:\n  callbacks:\n    x: {CALL}\n"), EVIL, "hydra.callbacks.x._target_", "tests.tripwire.Fire"
    ),
    "callback_group": Attack(
        {"hydra/callbacks/evil.yaml": f"x: {CALL}\n"},
        ["hydra/callbacks=evil"],
        "hydra.callbacks.x._target_",
        "tests.tripwire.Fire",
    ),
    "callback_open": Attack(
        experiment(f"hydra:\n  callbacks:\n    x: {{_target_: builtins.open, file: {TRIPWIRE}, mode: w}}\n"),
        EVIL,
        "hydra.callbacks.x._target_",
        "builtins.open",
    ),
    "callback_nested": Attack(
        experiment(f"hydra:\n  callbacks:\n    x: {{_target_: builtins.dict, y: [{{z: {CALL}}}]}}\n"),
        EVIL,
        "hydra.callbacks.x._target_",
        "builtins.dict",
    ),
    "callback_by_reference": Attack(
        experiment(f"evil: {{x: {CALL}}}\nhydra:\n  callbacks: ${{evil}}\n"), EVIL, "hydra.callbacks", "${evil}"
    ),
    "callback_entry_by_reference": Attack(
        experiment(f"evil: {CALL}\nhydra:\n  callbacks: {{x: '${{evil}}'}}\n"), EVIL, "hydra.callbacks.x", "${evil}"
    ),
    "logging_of_one_job": Attack(
        {
            **experiment(
                "hydra:\n  job_logging:\n    root: {handlers: [x]}\n"
                "    handlers: {x: {class: tests.tripwire.FireHandler}}\n"
            ),
            "experiment/harmless.yaml": "# @package _global_\nseed: 1\n",
        },
        ["+experiment=harmless,evil"],
        "hydra.job_logging.handlers.x.class",
        "tests.tripwire.FireHandler",
        multirun=True,
    ),
    "callback_of_a_sweep": Attack(
        experiment(f"hydra:\n  callbacks:\n    x: {CALL}\n"),
        [*EVIL, "seed=0,1"],
        "hydra.callbacks.x._target_",
        "tests.tripwire.Fire",
        multirun=True,
    ),
    "handler_factory": Attack(
        logger("    (): tests.tripwire.FireHandler"),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.handlers.evil.()",
        "tests.tripwire.FireHandler",
    ),
    "handler_class": Attack(
        logger("    class: tests.tripwire.FireHandler"),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.handlers.evil.class",
        "tests.tripwire.FireHandler",
    ),
    "handler_zipfile": Attack(
        logger(f"    class: zipfile.ZipFile\n    file: {TRIPWIRE}\n    mode: w"),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.handlers.evil.class",
        "zipfile.ZipFile",
    ),
    "handler_alias": Attack(
        logger(f"    (): logging.os.makedirs\n    name: {TRIPWIRE}"),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.handlers.evil.()",
        "logging.os.makedirs",
    ),
    "handler_file": Attack(
        logger(f"    class: logging.FileHandler\n    filename: {TRIPWIRE}"),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.handlers.evil.filename",
        "fired",
    ),
    "handler_stream": Attack(
        logger("    class: logging.StreamHandler\n    stream: ext://tripwire_import.x"),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.handlers.evil.stream",
        "ext://tripwire_import.x",
    ),
    "handler_of_hydra": Attack(
        logger("    class: tests.tripwire.FireHandler", "hydra_logging"),
        ["hydra/hydra_logging=evil"],
        "hydra.hydra_logging.handlers.evil.class",
        "tests.tripwire.FireHandler",
    ),
    "handler_by_reference": Attack(
        {
            **logger("    class: ${evil}"),
            "experiment/evil.yaml": "# @package _global_\nevil: tests.tripwire.FireHandler\n",
        },
        ["hydra/job_logging=evil", *EVIL],
        "hydra.job_logging.handlers.evil.class",
        "${evil}",
    ),
    "logging_by_reference": Attack(
        experiment(
            "evil: {version: 1, root: {handlers: [x]}, handlers: {x: {class: tests.tripwire.FireHandler}}}\n"
            "hydra:\n  job_logging: ${evil}\n"
        ),
        EVIL,
        "hydra.job_logging",
        "${evil}",
    ),
    "formatter_factory": Attack(
        logger(
            "    class: logging.StreamHandler\n    formatter: evil",
            extra="formatters:\n  evil: {(): tests.tripwire.Fire}\n",
        ),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.formatters.evil.()",
        "tests.tripwire.Fire",
    ),
    "formatter_class": Attack(
        logger(
            "    class: logging.StreamHandler\n    formatter: evil",
            extra="formatters:\n  evil: {class: tests.tripwire.FireFormatter}\n",
        ),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.formatters.evil.class",
        "tests.tripwire.FireFormatter",
    ),
    "formatter_reference": Attack(
        logger(
            "    class: logging.StreamHandler\n    formatter: evil",
            extra="formatters:\n  evil: {format: 'ext://tripwire_import.x'}\n",
        ),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.formatters.evil.format",
        "ext://tripwire_import.x",
    ),
    "filter_factory": Attack(
        logger(
            "    class: logging.StreamHandler\n    filters: [evil]",
            extra="filters:\n  evil: {(): tests.tripwire.Fire}\n",
        ),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.filters.evil.()",
        "tests.tripwire.Fire",
    ),
    "launcher_argument": Attack(
        {
            "hydra/launcher/evil.yaml": (
                f"_target_: hydra._internal.core_plugins.basic_launcher.BasicLauncher\nx: {CALL}\n"
            )
        },
        ["hydra/launcher=evil", "seed=0,1"],
        "hydra.launcher.x._target_",
        "tests.tripwire.Fire",
        multirun=True,
        on_1_4=False,
    ),
    "sweeper_argument": Attack(
        {
            "hydra/sweeper/evil.yaml": (
                "_target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper\n"
                f"max_batch_size: {CALL}\nparams: null\n"
            )
        },
        ["hydra/sweeper=evil", "seed=0,1"],
        "hydra.sweeper.max_batch_size._target_",
        "tests.tripwire.Fire",
        multirun=True,
        on_1_4=False,
    ),
    # Text of choice in a folder of choice, where Python may look for code.
    "runtime_output_dir": Attack(
        experiment(
            "hydra:\n  runtime: {output_dir: '@TRIPWIRE@'}\n  hydra_logging:\n"
            "    formatters: {x: {format: 'import os  # %(message)s'}}\n    handlers:\n"
            "      x: {class: logging.FileHandler, formatter: x, filename: '${hydra.runtime.output_dir}.pth'}\n"
            "    root: {level: DEBUG, handlers: [x]}\n"
        ),
        EVIL,
        "hydra.runtime.output_dir",
        "fired",
    ),
    "run_dir": Attack(experiment("hydra:\n  run:\n    dir: '@TRIPWIRE@'\n"), EVIL, "hydra.run.dir", "fired"),
    "run_dir_by_preset_overrides": Attack(
        experiment("hydra:\n  overrides:\n    hydra: ['hydra.sweep.dir=@TRIPWIRE@']\n"),
        [*EVIL, "seed=0,1"],
        "hydra.overrides",
        "fired",
        multirun=True,
    ),
    "run_dir_by_sweeper": Attack(
        experiment("hydra:\n  sweeper:\n    params: {hydra.sweep.dir: '@TRIPWIRE@'}\n"),
        [*EVIL, "seed=0,1"],
        "hydra",
        "hydra.sweep.dir=",
        multirun=True,
    ),
    "sweep_dir": Attack(
        experiment("hydra:\n  sweep:\n    dir: '@TRIPWIRE@'\n"),
        [*EVIL, "seed=0,1"],
        "hydra.sweep.dir",
        "fired",
        multirun=True,
    ),
    "sweep_subdir": Attack(
        experiment("hydra:\n  sweep:\n    subdir: '@TRIPWIRE@'\n"),
        [*EVIL, "seed=0,1"],
        "hydra.sweep.subdir",
        "fired",
        multirun=True,
    ),
    "output_subdir": Attack(
        experiment("hydra:\n  output_subdir: '@TRIPWIRE@'\n"), EVIL, "hydra.output_subdir", "fired"
    ),
    "job_name": Attack(
        experiment("hydra:\n  job:\n    name: '../../../../fired'\n"),
        [*EVIL, "hydra/job_logging=default"],
        "hydra.job.name",
        "../fired",
    ),
    "search_path": Attack(
        {"evil.yaml": "defaults: [config, _self_]\nhydra:\n  searchpath: ['pkg://tripwire_import']\n"},
        [],
        "hydra.searchpath[0]",
        "pkg://tripwire_import",
        config_name="evil",
    ),
    "defaults_list": Attack(experiment("defaults: ${tripwire:1}\n"), EVIL, "defaults", "the resolver 'tripwire'"),
    "defaults_entry": Attack(
        experiment("defaults:\n  - /experiment: ${tripwire:1}\n"),
        EVIL,
        "defaults",
        "the resolver 'tripwire'",
        on_1_4=False,
    ),
    "merged_onto": Attack(
        {
            "train/evil.yaml": "${tripwire:1}\n",
            "experiment/evil.yaml": "# @package _global_\nmodel: ${tripwire:1}\n",
            "experiment/more.yaml": ("# @package _global_\ndefaults: [evil, _self_]\nmodel: {head: linear}\n"),
        },
        ["+experiment=more"],
        "model",
        "the resolver 'tripwire'",
    ),
    "search_path_of_a_folder": Attack(
        {
            "evil.yaml": "defaults: [config, _self_]\nhydra:\n  searchpath: [../untrusted/more]\n",
            "more/hydra/callbacks/evil.yaml": f"x: {CALL}\n",
        },
        ["hydra/callbacks=evil"],
        "hydra.callbacks.x._target_",
        "tests.tripwire.Fire",
        config_name="evil",
    ),
    "launcher_setup": Attack(
        {"hydra/launcher/evil.yaml": f"{BATCH}setup: [touch @TRIPWIRE@]\n"},
        ["hydra/launcher=evil", "seed=0,1"],
        "hydra.launcher.setup[0]",
        "touch",
        multirun=True,
    ),
    "launcher_setup_of_an_experiment": Attack(
        experiment("hydra: {mode: MULTIRUN, launcher: {setup: [touch @TRIPWIRE@]}}\n"),
        ["hydra/launcher=batch", *EVIL, "seed=0,1"],
        "hydra.launcher.setup[0]",
        "touch",
        multirun=True,
    ),
    "launcher_python": Attack(
        {"hydra/launcher/evil.yaml": f"{BATCH}python: touch @TRIPWIRE@; false\n"},
        ["hydra/launcher=evil", "seed=0,1"],
        "hydra.launcher.python",
        "touch",
        multirun=True,
    ),
    "launcher_line_break": Attack(
        {"hydra/launcher/evil.yaml": f'{BATCH}comment: "x\\ntouch @TRIPWIRE@\\n#"\n'},
        ["hydra/launcher=evil", "seed=0,1"],
        "hydra.launcher.comment",
        "touch",
        multirun=True,
    ),
    "launcher_line_break_in_a_key": Attack(
        {"hydra/launcher/evil.yaml": f'{BATCH}additional_parameters: {{"x\\ntouch @TRIPWIRE@\\n#": 1}}\n'},
        ["hydra/launcher=evil", "seed=0,1"],
        "hydra.launcher.additional_parameters",
        "touch",
        multirun=True,
    ),
    "launcher_evaluates": Attack(
        {"hydra/launcher/evil.yaml": f"{BATCH}pre_dispatch: __import__('tests.tripwire').tripwire.fire()\n"},
        ["hydra/launcher=evil", "seed=0,1"],
        "hydra.launcher.pre_dispatch",
        "__import__",
        multirun=True,
    ),
    "target_in_train": Attack(
        experiment("train: {optimizer: {_target_: tests.tripwire.fire}}\n"),
        EVIL,
        "train.optimizer._target_",
        "tests.tripwire.fire",
        builds=True,
    ),
    "target_of_train": Attack(
        {"train/evil.yaml": "defaults: [default]\n_target_: tests.tripwire.fire\n"},
        ["train=evil"],
        "train._target_",
        "tests.tripwire.fire",
        builds=True,
    ),
    "target_of_the_model": Attack(
        {"model/evil.yaml": "_target_: tests.tripwire.fire\nhead: linear\nencoder: none\nencoder_width: null\n"},
        ["model=evil"],
        "model._target_",
        "tests.tripwire.fire",
        builds=True,
    ),
    "target_of_a_group_of_ones_own": Attack(
        experiment("tracker: {_target_: tests.tripwire.fire}\n"),
        EVIL,
        "tracker._target_",
        "tests.tripwire.fire",
        builds=True,
    ),
    "target_on_the_command_line": Attack(
        {}, ["+train.hook={_target_:tests.tripwire.fire}"], "train.hook._target_", "tests.tripwire.fire", builds=True
    ),
    "target_of_a_sweep": Attack(
        {},
        ["fusion._target_=fusionkit.create,tests.tripwire.fire"],
        "fusion._target_",
        "tests.tripwire.fire",
        multirun=True,
        builds=True,
    ),
    "target_in_a_sweep": Attack(
        {},
        ["+train.hook=choice({_target_:tests.tripwire.fire},{a:1})"],
        "train.hook._target_",
        "tests.tripwire.fire",
        multirun=True,
        builds=True,
    ),
    "target_by_the_sweeper": Attack(
        experiment(
            "hydra: {mode: MULTIRUN, sweeper: {params: {fusion._target_: 'fusionkit.create,tests.tripwire.fire'}}}\n"
        ),
        EVIL,
        "fusion._target_",
        "tests.tripwire.fire",
        multirun=True,
        builds=True,
    ),
    "group_by_the_sweeper": Attack(
        {
            **experiment("hydra: {mode: MULTIRUN, sweeper: {params: {data: 'mfeat,evil'}}}\n"),
            "data/evil.yaml": "defaults: [mfeat]\n_target_: tests.tripwire.fire\n",
        },
        EVIL,
        "data._target_",
        "tests.tripwire.fire",
        multirun=True,
        builds=True,
    ),
}
