"""Detectron2's PreciseBN (TEST.PRECISE_BN), for runs that resume exactly and have an nRPN."""

from detectron2.engine.hooks import PreciseBN
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import update_bn_stats

from ..data.loader import TrainLoader


class RepeatablePreciseBN(PreciseBN):
    """Statistics from the same batches each time, those at the beginning of the run's data.

    Detectron2's goes on where its loader stood before the run was killed, and tells the model that
    it is iteration 0: that of the warm-up, in which no statistics of the nRPN are taken.
    """

    @classmethod
    def like(cls, hook: PreciseBN) -> "RepeatablePreciseBN":
        return cls(hook._period, hook._model, hook._data_loader, hook._num_iter)

    def before_train(self):
        if isinstance(self._data_loader, TrainLoader):
            self._data_loader.start_at(0, self.trainer.seed)

    def update_stats(self):
        self._logger.info("Running precise-BN for %d iterations", self._num_iter)
        with EventStorage(self.trainer.iter):  # what the model reports is not the training's
            update_bn_stats(self._model, iter(self._data_loader), self._num_iter)
