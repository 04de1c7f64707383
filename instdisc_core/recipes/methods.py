"""The recipes of NNCLR and PIC."""

import dataclasses

from instdisc_core.recipes.recipe import Recipe

CENTRAL_SQUARE = (
    "Images are read as their central square, resized to 256 x 256 pixels, and cropped "
    "from it; the official code crops from the whole photograph."
)
_NO_LARS = (
    "SGD in batches of 512, with the learning rate 0.1 and the weight decay 1e-4 that SimSiam "
    "has for them, instead of LARS in batches of 4096 with 4.8 and 1e-6: Keras has no LARS."
)
_EMPTY_SET = "The support set starts empty instead of with random rows."

_NNCLR = Recipe(
    name="nnclr-imagenet",
    source="Dwibedi et al., ICCV 2021 (NNCLR), section 4.1, ResNet-50",
    deviations=(
        _NO_LARS,
        CENTRAL_SQUARE,
        "SimCLR's augmentation for both views, without solarization.",
        _EMPTY_SET,
    ),
    image_size=256,
    crop_size=224,
    augmentation="simclr",
    views=2,
    depth=50,
    stem="imagenet",
    embedding_dim=256,
    projector=(2048, 2048),
    predictor=(4096,),
    objective="nnclr",
    objective_settings=(("support_set", 98_304),),
    batch_size=512,
    epochs=1000,
    drop_remainder=True,
    learning_rate=0.1,
    weight_decay=1e-4,
    warmup_epochs=10,
    milestones=(),
    knn_temperature=0.07,
)

_PIC = Recipe(
    name="pic-imagenet",
    source="the official code of Cao et al., NeurIPS 2020 (PIC), one view of 224 pixels, ResNet-50",
    deviations=(
        CENTRAL_SQUARE,
        "Negatives are the recent ones, and weights are corrected, as in the paper; the code "
        "compares with all images.",
        "The window slides as in the paper; in the code it moves by 79 % of its size.",
        "The head has batch normalization.",
    ),
    image_size=256,
    crop_size=224,
    augmentation="simclr",
    depth=50,
    stem="imagenet",
    projector=(2048,),
    objective="pic",
    temperature=0.2,
    objective_settings=(("recent_negatives", 65_536),),
    batch_size=256,
    epochs=200,
    drop_remainder=True,
    sliding_window=(131_072, 16_384),
    learning_rate=0.03,
    weight_decay=1e-4,
    warmup_epochs=5,
    milestones=(),
    knn_temperature=0.07,
)

METHODS = (
    _NNCLR,
    dataclasses.replace(
        _NNCLR,
        name="nnclr-cifar10",
        source="Dwibedi et al., ICCV 2021 (NNCLR), which does not train on CIFAR-10",
        deviations=(
            "ResNet-18 for images of 32 pixels; SimCLR's augmentation for CIFAR-10; 200 epochs of "
            "SGD in batches of 512. None of these was tuned.",
            "A support set of 16,384 rows, fewer than there are images, so that neighbors are "
            "other images.",
            _EMPTY_SET,
        ),
        image_size=32,
        crop_size=32,
        augmentation_settings=(("strength", 0.5), ("blur", False)),
        depth=18,
        stem="cifar",
        objective_settings=(("support_set", 16_384),),
        epochs=200,
        learning_rate=0.12,
        weight_decay=5e-4,
        knn_temperature=0.1,
    ),
    _PIC,
    dataclasses.replace(
        _PIC,
        name="pic-cifar10",
        source="Cao et al., NeurIPS 2020 (PIC), which does not train on CIFAR-10",
        deviations=(
            "ResNet-18 for images of 32 pixels; SimCLR's augmentation for CIFAR-10. A window of a "
            "tenth of the images, and half as many negatives, as for ImageNet. None was tuned.",
            "The head has batch normalization.",
        ),
        image_size=32,
        crop_size=32,
        augmentation_settings=(("strength", 0.5), ("blur", False)),
        depth=18,
        stem="cifar",
        projector=(512,),
        objective_settings=(("recent_negatives", 2048),),
        batch_size=128,
        sliding_window=(4096, 512),
        weight_decay=5e-4,
        knn_temperature=0.1,
    ),
)
