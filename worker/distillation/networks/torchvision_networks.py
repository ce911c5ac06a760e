"""torchvision's classification networks by name, with random weights."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.family import Pattern, WeightShapes, from_library, on_any_device
from worker.distillation.networks.replaced_head import HeadOptions, with_head
from worker.distillation.parameters import Range

SMALL = 64
"""Largest height and width in pixels of images for which stems without strides are usual."""
MOBILE = "mobilenet_v2"
TRANSFORMING = ("googlenet", "inception_v3")
"""Networks whose published weights read images from -1 to 1, and which scale images to that if they are told to."""
IMAGENET = (0.485, 0.456, 0.406)
"""Mean of ImageNet's training images, by which torchvision's networks normalise theirs."""
NEAR = 0.01
WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
"""Usual width multipliers of MobileNetV2."""


@dataclass(frozen=True)
class Stem:
    """The layers of a family that make images smaller first: the path of a convolution of 7x7 pixels with stride 2, paths of
    other convolutions with stride 2, and the path of a max pooling. Empty paths stand for none."""

    large: str = ""
    strided: tuple[str, ...] = ()
    pooling: str = ""


STEMS = {
    **dict.fromkeys(("resnet", "resnext", "wide_resnet"), Stem(large="conv1", pooling="maxpool")),
    "densenet": Stem(large="features.conv0", pooling="features.pool0"),
    "shufflenet_v2": Stem(strided=("conv1.0",), pooling="maxpool"),
    MOBILE: Stem(strided=("features.0.0", "features.2.conv.1.0")),
}
"""Stems by what the names of their networks begin with."""


@dataclass(frozen=True)
class Options(HeadOptions):
    """First layers, width and head of a network of torchvision."""

    stem: Annotated[
        Literal["published", "cifar", "cifar_pooled"],
        "The first layers: as published, or as much code for images of about 32x32 pixels has them. `cifar` has strides of 1,"
        " no max pooling, and 3x3 instead of 7x7 convolutions; it exists for `resnet`, `resnext`, `wide_resnet`, `densenet`,"
        " `shufflenet_v2` and `mobilenet_v2`. `cifar_pooled` keeps the max pooling; it exists for those with 7x7 convolutions.",
    ] = "published"
    width: Annotated[
        float, Range(ge=0.05, le=8), "Multiplier of the channels of `mobilenet_v2`; other networks only have 1."
    ] = 1.0
    transform_input: Annotated[
        bool,
        "Whether images normalised as for ImageNet are scaled to -1 to 1 first, as `googlenet` and `inception_v3` do when"
        " torchvision loads its weights; other networks have false.",
    ] = False


def build(name: str, classes: int, contract: InputContract, options: Options = Options()) -> nn.Module:  # frozen
    """The network `name` for `classes`, with a first convolution for the contract's channels.

    Raises:
        SpecError: torchvision has no such classification network, or it cannot read images of this contract.
    """
    from torchvision import models
    from torchvision.models import get_model, list_models

    if name not in list_models(module=models):
        raise SpecError([Problem("/network", f"torchvision has no classification network {name!r}")])
    given = _options(name, contract, options)
    try:
        network = on_any_device(lambda: get_model(name, weights=None, num_classes=classes, **given))
    except (ValueError, AssertionError, TypeError, RuntimeError) as error:
        message = f"torchvision cannot build {name} for these classes and images: {error}"
        raise SpecError([Problem("/network", message)]) from error
    if contract.channels != 3:
        _replace_first_convolution(network, name, contract.channels)
    if options.stem != "published":
        _replace_stem(network, name, options.stem)
    arguments = "".join(f", {key}={value!r}" for key, value in given.items())
    call = f"torchvision.models.get_model({name!r}, weights=None, num_classes={classes}{arguments})"
    return with_head(from_library(network, call), options, classes)


def _replace_stem(network: nn.Module, name: str, kind: str) -> None:
    """Let the first layers keep the size of images, but for the pooling of `cifar_pooled`."""
    stem = _stem(name)
    if stem is None or (kind == "cifar_pooled" and not stem.large):
        raise SpecError([Problem("/options/stem", f"{name} has no stem `{kind}`; use `published`")])
    if stem.large:
        old = network.get_submodule(stem.large)
        assert isinstance(old, nn.Conv2d)
        new = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=False)
        network.set_submodule(stem.large, new)
    for path in stem.strided:
        vars(network.get_submodule(path))["stride"] = (1, 1)
    if stem.pooling and kind == "cifar":
        network.set_submodule(stem.pooling, nn.Identity())


def _stem(name: str) -> Stem | None:
    return next((stem for family, stem in STEMS.items() if name.startswith(family)), None)


def guess(name: str, shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """The stems, the width of MobileNetV2, and what is made of the input, with which a network may have weights of these shapes."""
    stem, first = _stem(name), shapes[0]
    if name in TRANSFORMING:
        yield from ({}, {"transform_input": True})
    elif stem is None:
        yield {}
    elif stem.large:
        yield from ({},) if first[-1] == 7 else ({"stem": "cifar"}, {"stem": "cifar_pooled"})
    else:
        widths = [each for each in WIDTHS if _rounded(32 * each) == first[0]] if name == MOBILE else [1.0]
        for width in widths:
            own = {} if width == 1.0 else {"width": width}
            yield from (own, own | {"stem": "cifar"})


def _rounded(channels: float) -> int:
    """MobileNet's number of channels: a multiple of 8 that is at most a tenth less (arXiv:1801.04381)."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def is_rare(name: str, options: Mapping[str, Any], contract: InputContract) -> bool:
    """Whether options that weights do not show are rare: strides of 1 on large images, poolings of residual networks
    without stride, and scaling of the input where it is not normalised as for ImageNet, or none where it is."""
    if name in TRANSFORMING:
        as_imagenet = max(abs(one - two) for one, two in zip(contract.mean, IMAGENET, strict=False)) < NEAR
        return as_imagenet != bool(options.get("transform_input"))
    stem, kind = _stem(name), options.get("stem", "published")
    large = min(contract.height, contract.width) > SMALL
    pooled = kind == "cifar_pooled" and not name.startswith("densenet")
    return pooled or (large and stem is not None and not stem.large and kind != "published")


def _options(name: str, contract: InputContract, asked: Options) -> dict[str, Any]:
    """Options that some builders need: no auxiliary heads, the image size, and the width."""
    from torchvision.models import VisionTransformer, get_model_builder

    builder = get_model_builder(name)
    source = inspect.getsource(inspect.unwrap(builder))
    options: dict[str, Any] = {}
    if asked.width != 1.0:
        if name != MOBILE:
            raise SpecError([Problem("/options/width", f"must be 1 for {name}; only {MOBILE} has other widths")])
        options["width_mult"] = asked.width
    if asked.transform_input and name not in TRANSFORMING:
        words = f"must be false for {name}; only {' and '.join(TRANSFORMING)} scale their input"
        raise SpecError([Problem("/options/transform_input", words)])
    if name in TRANSFORMING:
        options |= {"aux_logits": False, "init_weights": True}
        options |= {"transform_input": True} if asked.transform_input else {}
    if inspect.signature(builder).return_annotation is VisionTransformer:
        options["image_size"] = _square(name, contract)
    if "input_size" in source:
        options["input_size"] = (contract.height, contract.width)
    return options


def _square(name: str, contract: InputContract) -> int:
    if contract.height != contract.width:
        message = f"{name} requires square images, not {contract.height}x{contract.width}"
        raise SpecError([Problem("/network", message)])
    return contract.height


KEPT = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
"""Attributes of the first convolution that stay when it is replaced."""


def _replace_first_convolution(network: nn.Module, name: str, channels: int) -> None:
    """Replace the first convolution by one for another number of input channels, with random weights."""
    path, first = next((path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d))
    if first.in_channels != 3 or first.groups != 1:
        raise SpecError([Problem("/network", f"{name} requires images of 3 channels, not {channels}")])
    kept: dict[str, Any] = {each: getattr(first, each) for each in KEPT}
    fresh = nn.Conv2d(channels, first.out_channels, bias=first.bias is not None, **kept)
    parent, _, attribute = path.rpartition(".")
    setattr(network.get_submodule(parent), attribute, fresh)


PATTERN = Pattern(
    "torchvision/",
    r"^torchvision/[a-z0-9_]+$",
    "A classification network of torchvision by its name in torchvision, such as torchvision/resnet18, with random weights.",
    build,
    Options,
    guess=guess,
    rare=is_rare,
)
