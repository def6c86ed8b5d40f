"""Counting, on a CPU, the operations for which the host would wait for a GPU."""

from collections import Counter
from contextlib import contextmanager
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Their result, or its size, has to be known on the host
_WAITING = {
    "aten::_local_scalar_dense",  # item, bool, float, if
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::equal",
    "torchvision::nms",
}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_"}


class _Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name in _WAITING or (name in _INDEXING and self._by_mask(args)):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _by_mask(args):
        """Indexing by a mask is nonzero, too; putting a single value there is not."""
        masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        return bool(masks) and (len(args) == 2 or args[2].numel() != 1)


@contextmanager
def counted_syncs():
    """Gives a Counter: operation -> how often the host would have waited for it."""
    counting, tolist = _Counting(), torch.Tensor.tolist

    def counted_tolist(tensor):  # reads a CPU tensor without an operation
        counting.counts["tolist"] += 1
        return tolist(tensor)

    with mock.patch.object(torch.Tensor, "tolist", counted_tolist), counting:
        yield counting.counts
