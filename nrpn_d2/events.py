"""The exchange between the networks, in the log (TensorBoard and metrics.json have it anyway)."""
import logging

from detectron2.utils.events import EventWriter, get_event_storage


class ExchangePrinter(EventWriter):
    """Logs the ``nrpn/*`` scalars of ``HardNegativeRPN``, averaged over the last iterations."""

    def __init__(self, window_size: int = 20):
        self.logger = logging.getLogger(__name__)
        self.window_size = window_size

    def write(self):
        storage = get_event_storage()
        names = sorted(name for name in storage.histories() if name.startswith("nrpn/"))
        if "nrpn/joint" not in names:
            return
        names.remove("nrpn/joint")
        phase = "joint" if storage.history("nrpn/joint").latest() else "warm-up"
        values = "  ".join(
            f"{name[len('nrpn/'):]}: {storage.history(name).avg(self.window_size):.3g}"
            for name in names
        )
        self.logger.info(f"nRPN {phase}  {values}")
