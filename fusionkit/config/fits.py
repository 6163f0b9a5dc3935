"""Checks before a job starts: of the device, and of options that have to go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusionkit.config.options import ModelOptions, RunConfig
from fusionkit.config.safe import build
from fusionkit.core.fusion import Fusion
from fusionkit.core.validation import check_device
from fusionkit.errors import ConfigError, DimsError, FusionError


class NotApplicable(ConfigError):
    """A fabrication was chosen for a fusion that does not take one, or that fixes its own."""


def preflight(config: RunConfig, fabrication_of_group: bool = True) -> None:
    """Check the device and that fusion and fabrication go together.

    Args:
        config: of the job.
        fabrication_of_group: whether the fusion takes its fabrication from the group, by reference.

    Raises:
        FusionError: the device does not exist, or computes nothing.
        NotApplicable: the fusion does not take the fabrication that was chosen.
    """
    check_device(config.device)
    if config.device.startswith("meta"):
        raise FusionError(f"device should be one that computes; found {config.device!r}.")
    chosen, fusion = config.fabrication.name, config.fusion
    if chosen == "dense":
        return
    if "parameter_fabrication" not in fusion.model_fields_set:
        raise NotApplicable(
            f"fabrication should be dense, because the fusion {fusion.name!r} takes none; found {chosen!r}."
        )
    if not fabrication_of_group:
        own = fusion.parameter_fabrication
        name = own.get("name") if isinstance(own, Mapping) else own
        raise NotApplicable(
            f"fabrication should be left at dense, because this fusion fixes its own, {name!r}; "
            f"found {chosen!r}.  fusion=parameterized_concatenation takes any."
        )


def check_operator(config: RunConfig, dims: Sequence[int] | None = None, outputs: int | None = None) -> int | None:
    """Check on the meta device that the operator accepts its views, masks if there is view dropout, and the outputs.

    Args:
        config: of the job.
        dims: the widths of the data; None for those that the config knows.
        outputs: number of outputs of the task; None: not known yet, so a model without a head is left to the run.

    Returns:
        The width of the output; None where it is known once the data is read, or left to the run.

    Raises:
        DimsError: it does not accept the widths; without a head it does not give as many outputs.
        FusionError: it refuses masks.  Any other error of an operator is left to the run, which records it.
    """
    dims = config.dims or config.data.dims or dims
    headless = config.model.head == "none"
    if (dims is None and not config.train.view_dropout) or (headless and outputs is None):
        return None
    try:
        operator: Fusion = build({**config.fusion_node(dims, outputs or 0), "device": "meta"})
    except DimsError as error:
        raise advised(error, config.model.encoder) from error
    except (Exception, SystemExit):  # The operator's code may raise anything; the run records it.
        return None
    check_view_dropout(operator, config)
    if dims is not None and outputs is not None:
        check_outputs(operator, config.model, outputs)
    return operator.n


def check_outputs(fusion: Fusion, model: ModelOptions, outputs: int) -> None:
    """Check that a fusion without a head behind it has the width of the outputs.

    Raises:
        DimsError: it has another.
    """
    if model.head == "linear" or fusion.n == outputs:
        return
    advice = "model.head=linear takes any width."
    if fusion.dims is not None and set(fusion.dims) == {fusion.n}:
        option = "model.encoder=linear" if model.encoder == "none" else "model.encoder_width=null"
        advice = f"{option} gives it views of that width; {advice}"
    task = f"{outputs}, the number of classes, labels or targets, because model.head is none"
    raise DimsError(f"The output of {fusion.name!r} should have the width {task}; found {fusion.n}.  {advice}")


def uses_n(config: RunConfig) -> bool:
    """Whether the fusion or an encoder takes its width from n."""
    if config.model.head == "none":
        return False
    return config.fusion.n is not None or (config.model.encoder != "none" and config.model.encoder_width is None)


def check_view_dropout(fusion: Fusion, config: RunConfig) -> None:
    """Check that an operator takes the masks of view dropout, if there is any; raise as ``check_takes_masks``."""
    if config.train.view_dropout and config.tree["fusion"].get("missing") is None:
        check_takes_masks(fusion, f"train.view_dropout is {config.train.view_dropout:g}")


def check_takes_masks(fusion: Fusion, reason: str) -> None:
    """Refuse an operator that refuses masks where they are needed.

    Raises:
        FusionError: names the operator, the reason and the option that helps.
    """
    if not fusion.takes_masks:
        raise FusionError(
            f"The fusion {fusion.name!r} should take masks, because {reason}; found one that refuses them.  "
            "fusion.missing=placeholder lets a learned vector stand for an absent view."
        )


def advised(error: DimsError, encoder: str) -> DimsError:
    """Return the error, with the advice to use encoders if the widths of the views differ."""
    text = str(error)
    if encoder != "none" or "equal width" not in text or "model.encoder" in text:
        return error
    return DimsError(f"{text.rstrip('.')}.  model.encoder=linear makes the views equally wide.")
