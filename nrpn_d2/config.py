"""Every configuration key that nrpn_d2 adds to Detectron2's, with its unit or the paper's symbol.

The comment above or beside a key is its text in docs/configuration.md. What its values may be says
config_checks.
"""

from detectron2.config import CfgNode as CN


def add_nrpn_config(cfg: CN) -> None:
    """Add nrpn_d2's keys, with their defaults, to a Detectron2 config (in place).

    The defaults are the paper's RPN + nRPN (binary cross-entropy, no overlap loss). They only act
    once ``MODEL.PROPOSAL_GENERATOR.NAME`` is ``"HardNegativeRPN"``.
    """
    # ---- The objectness loss of the RPN
    cfg.MODEL.RPN.OBJECTNESS_LOSS = CN()
    # "BCE" (Faster R-CNN), "Overlap" (paper, Eq. 1), "IoUTarget", "Focal", "QualityFocal"
    cfg.MODEL.RPN.OBJECTNESS_LOSS.NAME = "BCE"
    # "clamped": a positive is pushed until p = IoU; "soft": its target is IoU;
    # "literal": the printed equation, whose gradient equals that of BCE
    cfg.MODEL.RPN.OBJECTNESS_LOSS.OVERLAP_MODE = "clamped"
    # The IoU of a positive anchor is clamped to [MIN_IOU, 1] before it divides or is a target
    cfg.MODEL.RPN.OBJECTNESS_LOSS.MIN_IOU = 0.1
    cfg.MODEL.RPN.OBJECTNESS_LOSS.FOCAL_ALPHA = 0.25  # Focal: weight of the positives
    cfg.MODEL.RPN.OBJECTNESS_LOSS.FOCAL_GAMMA = 2.0  # Focal and QualityFocal: the exponent

    # IoUTarget: the target of a positive is the IoU of its "proposal", the box that the RPN
    # regresses from it, or that of the "anchor"
    cfg.MODEL.RPN.OBJECTNESS_LOSS.IOU_OF = "proposal"
    # IoUTarget: whether sampled negatives whose IoU is at least 0.3 have it as their target, too;
    # only the IoU of a proposal can be
    cfg.MODEL.RPN.OBJECTNESS_LOSS.NEAR_NEGATIVES = False
    # IoUTarget: whether the target is (IoU - 0.3) / 0.7, and 0 below, instead of IoU
    cfg.MODEL.RPN.OBJECTNESS_LOSS.STRETCH = False

    # ---- Which negative anchors the RPN learns from
    cfg.MODEL.RPN.NEGATIVE_SAMPLER = CN()
    # "NRPN" (paper), "Random" (Faster R-CNN), "OHEM", "IoUBalanced", "All" (focal losses only)
    cfg.MODEL.RPN.NEGATIVE_SAMPLER.NAME = "NRPN"
    # NRPN and OHEM: largest fraction of an image's sampled negatives that are chosen for being
    # hard; the rest is random
    cfg.MODEL.RPN.NEGATIVE_SAMPLER.HARD_FRACTION = 0.25
    # IoUBalanced: number of equal IoU intervals that share the negatives
    cfg.MODEL.RPN.NEGATIVE_SAMPLER.IOU_BINS = 3

    # ---- The negative RPN. It is built for a sampler that needs hardness, such as "NRPN"
    cfg.MODEL.NRPN = CN()
    # Iterations in which the RPN trains alone (paper, Sec. 2.1: "a small number of epochs").
    # 5,011 is one epoch of VOC 2007 trainval at batch size 1
    cfg.MODEL.NRPN.WARMUP_ITERS = 5011
    # False: a backbone of its own, as in the paper. True: a second head on the RPN's features
    cfg.MODEL.NRPN.SHARE_FEATURES = False
    # With shared features: whether the nRPN's loss stays out of the shared backbone
    cfg.MODEL.NRPN.STOP_GRADIENT = True
    # What counts as a false positive: "threshold" (paper, Sec. 2.2: score over FP_SCORE), "topk"
    # (the FP_TOPK best-scored background anchors of an image), "overestimate" (score minus IoU over
    # FP_SCORE) or "overestimate_topk" (the FP_TOPK background anchors of largest score minus IoU).
    # With objectness that means IoU, hardly any background scores over 0.7. Or a name of your own
    # in MINER_REGISTRY
    cfg.MODEL.NRPN.FP_SELECT = "threshold"
    # "threshold" and "overestimate": objectness probability, or its excess over the IoU, over which
    # it counts
    cfg.MODEL.NRPN.FP_SCORE = 0.7
    # IoU with every object below which it counts; with FP_BY "anchor" at most
    # MODEL.RPN.IOU_THRESHOLDS[0]
    cfg.MODEL.NRPN.FP_IOU = 0.3
    cfg.MODEL.NRPN.FP_TOPK = 16  # "topk" and "overestimate_topk": anchors per image
    # Whose IoU decides on false positives: that of the "anchor", or that of its "proposal", the box
    # that the RPN regresses from it (paper, Sec. 2.1: "among the RPN proposals"). With "proposal",
    # hard negatives, too, have a proposal with an IoU below FP_IOU
    cfg.MODEL.NRPN.FP_BY = "anchor"
    # The nRPN's own mistakes: of the background anchors that are no false positives, this many in
    # each image, its best-scored, join its mini-batch as negatives; 0 for none, as in the paper
    cfg.MODEL.NRPN.FALSE_ALARMS = 0
    cfg.MODEL.NRPN.BATCH_SIZE_PER_IMAGE = 256  # anchors per image in the nRPN's mini-batch
    cfg.MODEL.NRPN.POSITIVE_FRACTION = 0.5  # largest fraction of false positives in it
    # Largest fraction of its negatives that are object anchors; the rest is random background
    cfg.MODEL.NRPN.OBJECT_FRACTION = 0.5
    # The nRPN proposes at most this many anchors of an image, those of highest score
    cfg.MODEL.NRPN.PRE_NMS_TOPK = 1000
    cfg.MODEL.NRPN.NMS_THRESH = 0.7  # IoU over which the lower-scored of two proposals is dropped
    cfg.MODEL.NRPN.LOSS_WEIGHT = 1.0  # weight of the nRPN's loss in the sum of losses
    # Background anchors with at least this fraction of their area on a difficult object are ignored
    cfg.MODEL.NRPN.IGNORE_IOA = 0.5

    # ---- VGG (build_vgg_backbone, VGGBoxHead). The defaults are VGG-16
    cfg.MODEL.VGG = CN()
    cfg.MODEL.VGG.DEPTHS = [2, 2, 3, 3, 3]  # convolutions per stage
    cfg.MODEL.VGG.WIDTHS = [64, 128, 256, 512, 512]  # channels per stage
    # Normalisation after each convolution: a name of Detectron2's get_norm, such as "BN", "SyncBN",
    # "FrozenBN" or "GN"; "" is none, as in VGG-16
    cfg.MODEL.VGG.NORM = ""
    # Stages whose features are returned; conv5 has stride 16, since there is no fifth pooling
    cfg.MODEL.VGG.OUT_FEATURES = ["conv5"]
    cfg.MODEL.VGG.FC_DIM = 4096  # width of fc6 and fc7
    cfg.MODEL.VGG.DROPOUT = 0.5  # probability that a unit of fc6 or fc7 is dropped in training

    # ---- Classification networks of torchvision (build_torchvision_backbone, ..._fpn_backbone)
    cfg.MODEL.TORCHVISION = CN()
    # As in torchvision.models.get_model; MODEL.WEIGHTS "torchvision://NAME" has its weights.
    # MODEL.BACKBONE.FREEZE_AT counts its blocks, see TorchvisionBackbone
    cfg.MODEL.TORCHVISION.NAME = "mobilenet_v2"
    # Feature maps by their strides: "stride4", "stride8", ...
    cfg.MODEL.TORCHVISION.OUT_FEATURES = ["stride16"]
    # "FrozenBN" keeps the batch normalisation of the weights, "BN" trains it
    cfg.MODEL.TORCHVISION.NORM = "FrozenBN"

    # ---- Your own data (docs/own_data.md): a list of [name, path] or [name, path, folder]
    # ["mine", "annotations.json"]: COCO, the dataset "mine"; the folder of the images, if that is
    # not the file's own, is the third
    # ["mine", "data.yaml"]: YOLO, the datasets mine_train, mine_val and mine_test; a third replaces
    # the file's "path"
    # ["mine", "list.txt"]: images without objects, the dataset "mine"; the folder of the images, if
    # that is not the list's own, is the third
    # ["mine", "folder"]: VOC layout, a dataset mine_<split> for each file in ImageSets/Main
    cfg.DATASETS.OWN = []
    # "error": stop at the first invalid object or image; "skip": drop, count and report it
    cfg.DATASETS.ON_ERROR = "error"
    # Names of classes whose objects are left out of the training, as if nobody had labelled them
    # (they count as background). The recall of proposals is then also given for these classes
    # ("AR@100-unseen") and for the others ("AR@100-seen")
    cfg.DATASETS.LEFT_OUT = []
    # ---- Data in PASCAL VOC layout (Annotations/, ImageSets/Main/, JPEGImages/)
    # VOC_NAME "x" registers the datasets x_<split>, one for each file in VOC_ROOT/ImageSets/Main
    cfg.DATASETS.VOC_NAME = ""
    # The folder; environment variables and ~ are expanded
    cfg.DATASETS.VOC_ROOT = ""
    cfg.DATASETS.VOC_CLASSES = []  # names of the classes, in the order of their ids
    # "error": stop at the first invalid object or image; "skip": drop, count and report it
    cfg.DATASETS.VOC_ON_ERROR = "error"

    # ---- Checkpoints
    # The newest periodic ones that are kept; 0 keeps all
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 3
    # model_best.pth has the largest value of this result, taken every TEST.EVAL_PERIOD iterations.
    # "" is "bbox/AP50" or, for a ProposalNetwork, "box_proposals/AR" (the model as configured), on
    # the first of DATASETS.TEST
    cfg.SOLVER.BEST_METRIC = ""

    # ---- Training
    cfg.register_deprecated_key("SOLVER.SKIP_NONFINITE")  # of version 0.1
    # Only algorithms that give the same result every time, also on a GPU: slower, and operations
    # without one raise an error. On a GPU it needs ROI_BOX_HEAD.POOLER_TYPE "ROIAlignV2"
    cfg.SOLVER.DETERMINISTIC = False
    # Log the training to this project of Weights & Biases (pip install wandb), too; "" for none
    cfg.WANDB_PROJECT = ""

    # ---- Evaluation
    cfg.TEST.PROPOSALS = CN()
    # Numbers of proposals per image. "bbox@50" and "AR@50" are results of the same model with
    # MODEL.RPN.POST_NMS_TOPK_TEST 50; those without a number ("bbox", "AR") are the model's own
    cfg.TEST.PROPOSALS.BUDGETS = [50, 100, 300]
    cfg.TEST.PROPOSALS.IOU_THRESHOLDS = [0.5, 0.7, 0.9]  # at which recall is given
