"""Parts of a dataset for cross-validation."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from voc_folder import write_voc_folder

from nrpn_d2.data.faults import DatasetError
from nrpn_d2.data.folds import fold_name
from nrpn_d2.engine.defaults import build_cfg


def ids(name):
    return [record["image_id"] for record in DatasetCatalog.get(name)]


def test_every_image_is_held_out_once(tmp_path, restored_catalogs):
    root = write_voc_folder(tmp_path, [{"id": str(n)} for n in range(7)])
    names = {
        held_out: [fold_name("own_train", fold, 3, held_out) for fold in range(3)]
        for held_out in (True, False)
    }
    own = ["DATASETS.OWN", f"[['own', '{root}']]", "DATASETS.VOC_CLASSES", "['cat']"]
    both = ["DATASETS.TRAIN", str(tuple(names[False])), "DATASETS.TEST", str(tuple(names[True]))]
    build_cfg("", own + both)
    held_out = list(map(ids, names[True]))
    assert sorted(sum(held_out, [])) == ids("own_train") and sorted(map(len, held_out)) == [2, 2, 3]
    for part, rest in zip(held_out, map(ids, names[False])):
        assert rest == [i for i in ids("own_train") if i not in part]
    assert MetadataCatalog.get(names[True][0]).thing_classes == ["cat"]
    build_cfg("", [*own, "DATASETS.TEST", "('own_train_without0of8',)"])
    with pytest.raises(DatasetError, match="'own_train' has 7 images, too few for 8 folds"):
        ids("own_train_without0of8")
    build_cfg("", [*own, "DATASETS.TEST", "('own_train_fold3of3', 'none_fold0of3')"])
    assert not {"own_train_fold3of3", "none_fold0of3"} & set(DatasetCatalog.list())
