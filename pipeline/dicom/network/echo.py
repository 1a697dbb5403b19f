"""C-ECHO to another application entity (PS3.4 A): whether a program answers there, and not only the kernel."""

from __future__ import annotations

from pipeline.dicom.network.address import Address, hold_reactor

VERIFICATION = "1.2.840.10008.1.1"


def answers_echo(address: Address, seconds: float) -> bool:
    """Whether an application entity answers within `seconds` for each of connection, association and C-ECHO.

    A rejection counts, since it is an answer: it may be congested, or not know our AE title. A port is accepted by the
    kernel even while the process behind it hangs; an association is not.
    """
    from pynetdicom import AE, build_context

    entity = AE(ae_title=address.calling)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = seconds
    association = entity.associate(address.host, address.port, [build_context(VERIFICATION)], ae_title=address.ae_title)
    if not association.is_established:
        return bool(association.is_rejected or association.rejected_contexts)
    hold_reactor(association)
    try:
        return "Status" in association.send_c_echo()
    finally:
        association.release()
