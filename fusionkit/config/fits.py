"""Checks before a job starts: of the device, and of options that have to go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusionkit.config.options import RunConfig
from fusionkit.config.safe import build
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


def check_widths(config: RunConfig, dims: Sequence[int] | None = None) -> int | None:
    """Check on the meta device that the operator accepts the widths of its views.

    Args:
        config: of the job.
        dims: the widths of the data; None for those that the config knows.

    Returns:
        The width of the output; None where it is known once the data is read, or left to the run.

    Raises:
        DimsError: it does not.  Any other error of an operator is left to the run, which records it.
    """
    dims = config.dims or config.data.dims or dims
    if dims is None:
        return None
    try:
        operator = build({**config.tree["fusion"], "dims": config.fusion_dims(dims), "device": "meta"})
    except DimsError as error:
        raise advised(error, config.model.encoder) from error
    except (Exception, SystemExit):  # The operator's code may raise anything; the run records it.
        return None
    return int(operator.n)


def uses_n(config: RunConfig) -> bool:
    """Whether the fusion or an encoder takes its width from n."""
    return config.fusion.n is not None or (config.model.encoder != "none" and config.model.encoder_width is None)


def advised(error: DimsError, encoder: str) -> DimsError:
    """Return the error, with the advice to use encoders if the widths of the views differ."""
    text = str(error)
    if encoder != "none" or "equal width" not in text or "model.encoder" in text:
        return error
    return DimsError(f"{text.rstrip('.')}.  model.encoder=linear makes the views equally wide.")
