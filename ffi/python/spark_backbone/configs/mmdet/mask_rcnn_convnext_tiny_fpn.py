"""Mask R-CNN on a ConvNeXt-T of spark_backbone with a feature pyramid, for COCO.

To change it, copy it along with the file that it begins from: `weights` is set here,
`data_root` and `num_classes` are set there.
"""

_base_ = "mask_rcnn_resnet50_fpn.py"

# File of pretrained weights, of any framework; None trains from scratch.
weights = None

model = dict(
    backbone=dict(
        name="convnext_tiny",
        weights=weights,
        drop_path_rate=0.4,
        out_norm=True,
        frozen_stages=-1,
        norm_eval=False,
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", begin=0, end=36, by_epoch=True, milestones=[27, 33]),
]
# For 16 images a step; scale the learning rate along with the batch.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
