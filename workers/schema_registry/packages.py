"""The packages that a format needs. The extra of the format's name installs them."""

from __future__ import annotations

from importlib.util import find_spec

from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.workers.connection import FILE

_PACKAGES = {WireFormat.AVRO: ("fastavro",), WireFormat.PROTOBUF: ("google.protobuf", "grpc_tools", "google.type")}


def lacking(format: WireFormat) -> str | None:
    """What is to be installed for this format, in words; None if it is there."""
    if any(map(_missing, _PACKAGES.get(format, ()))):
        return f"{format} needs packages that are not installed: pip install 'failsoft[{format}]'"
    return None


def check_packages(key: str, format: WireFormat) -> None:
    """Raises Refused where the format of a ``key`` in the pipeline file needs packages that are not installed."""
    why = lacking(format)
    if why is not None:
        raise Refused(FILE, [f"{key}: {why}"])


def _missing(package: str) -> bool:
    try:
        return find_spec(package) is None
    except ModuleNotFoundError:  # not even the package around it
        return True
