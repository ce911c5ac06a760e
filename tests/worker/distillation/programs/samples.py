"""Networks to pack, small ones and those of libraries, and packing them."""

import torch
from safetensors.torch import load_file
from torch import nn

from worker.distillation.programs import load
from worker.distillation.programs.packing import pack

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CLASSES = 5


class Everything(nn.Module):
    """What networks do besides calling layers: see the comments."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.mix = nn.Conv2d(8, 8, 1)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, CLASSES)
        self.tied = nn.Linear(8, CLASSES)
        self.tied.weight = self.head.weight
        self.register_buffer("offset", torch.linspace(-1, 1, 8), persistent=False)
        self.register_buffer("steps", torch.arange(3))
        self.scale = torch.full((1, 8, 1, 1), 1.5)  # a plain attribute

    def forward(self, x):
        x = self.act(self.norm(self.stem(x)))
        x = self.act(x + self.mix(self.mix(x)))  # one module twice
        x = torch.nn.functional.relu(x * self.scale - 0.1)  # an activation as a function
        if self.training:  # drop path, which evaluation mode has not
            x = x * torch.empty(x.shape[0], 1, 1, 1).bernoulli_(0.8)
        mask = torch.zeros(x.shape[-2], x.shape[-1])
        mask[:4] += 1  # in place on a part of a fresh tensor
        with torch.no_grad():
            gate = x.mean(1, keepdim=True).sigmoid()
        x = x * gate + mask
        tokens = x.flatten(2).transpose(1, 2) + self.offset
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        x = self.drop(tokens.reshape(x.shape[0], -1, 8).mean(1))
        return self.head(x) + 0.5 * self.tied(x)


class Residual(nn.Module):
    """Two resolutions, shortcuts, BatchNorm and a linear head: what taps and data-free sources need."""

    def __init__(self, channels=3, width=8, classes=CLASSES):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.body = nn.Sequential(Block(width, 1), Block(width, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        x = self.body(self.relu(self.bn(self.conv(x))))
        return self.fc(self.pool(x).flatten(1))


class Block(nn.Module):
    def __init__(self, width, stride):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.down = nn.Identity() if stride == 1 else nn.Conv2d(width, width, 1, stride)

    def forward(self, x):
        y = self.bn(self.conv(x))
        y += self.down(x)
        return self.relu(y)


class NormAct(nn.BatchNorm2d):
    """BatchNorm with its activation within, as timm has it: a call that is no single layer."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(super().forward(x))


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 4, 3), NormAct(4), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(self.bn(self.conv(x)).mean((2, 3)))


def of(network_type, seed=0, **options):
    torch.manual_seed(seed)
    return randomised(network_type(**options))


def randomised(network):
    """The network with BatchNorm statistics that are not those of a fresh one."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network


def learnt(network, dataset):
    """The network once it tells the dataset's classes apart."""
    data = load_file(dataset)
    image, label = (data["train.image"].float() / 255 - 0.5) / 0.25, data["train.label"]
    optimizer = torch.optim.Adam(network.train().parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(image), label).backward()
        optimizer.step()
    return network


def packed(network, path, size=16, channels=3, train=True, **about):
    """The file of a packed network."""
    mean, std = MEAN[:channels], STD[:channels]
    pack(network, path, channels=channels, height=size, width=size, mean=mean, std=std, train=train, **about)
    return path


def again(network, path, size=16, train=True):
    """The network packed and loaded."""
    return load(packed(network, path, size=size, train=train))


def library_networks():
    """The twenty networks by name: what makes each, and its image's size."""
    import timm
    import torchvision

    def vision(name, **options):
        return lambda: getattr(torchvision.models, name)(weights=None, num_classes=CLASSES, **options)

    def timms(name, **options):
        return lambda: timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)

    named = {name: (vision(name), 64) for name in (
        "resnet18", "mobilenet_v3_small", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "swin_t", "densenet121",
        "shufflenet_v2_x1_0",
    )}  # fmt: skip
    named["vit_b_16"] = narrow_vit, 64
    named["vgg11_bn"] = narrow_vgg, 64
    named["googlenet"] = vision("googlenet", aux_logits=False, init_weights=False), 64
    named["timm_deit_tiny"] = timms("deit_tiny_patch16_224", img_size=64, drop_path_rate=0.1), 64
    named["timm_mixer"] = timms("mixer_s16_224", img_size=64), 64
    named["timm_efficientformerv2"] = timms("efficientformerv2_s0", img_size=64), 64
    named["timm_maxvit"] = timms("maxvit_rmlp_pico_rw_256", img_size=128), 128
    for name in ("resnet26d", "mobilevit_xxs", "regnety_004", "repvgg_a0", "poolformer_s12"):
        named[f"timm_{name}"] = timms(name), 64
    return named


def narrow_vit():
    """torchvision's vit_b_16 with a quarter of its width: 343 MB of weights would take most of the tests' time."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(64, 16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=CLASSES)


def narrow_vgg():
    """torchvision's vgg11_bn with a hidden layer of 512, for the same reason."""
    from torchvision.models import vgg11_bn

    network = vgg11_bn(weights=None, num_classes=CLASSES)
    network.avgpool, network.classifier[0] = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 512)
    network.classifier[3], network.classifier[6] = nn.Linear(512, 512), nn.Linear(512, CLASSES)
    return network


LIBRARY = (
    "resnet18", "mobilenet_v3_small", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t", "densenet121",
    "shufflenet_v2_x1_0", "vgg11_bn", "googlenet", "timm_resnet26d", "timm_mobilevit_xxs", "timm_deit_tiny", "timm_mixer",
    "timm_regnety_004", "timm_efficientformerv2", "timm_maxvit", "timm_repvgg_a0", "timm_poolformer_s12",
)  # fmt: skip
