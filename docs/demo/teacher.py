"""The demo's teacher: a LeNet-5 trained on scikit-learn's handwritten digits.

`python -m docs.demo.teacher FOLDER` writes `teacher.safetensors` and `digits.npz` there.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from worker.distillation import networks
from worker.distillation.contract import InputContract

SIDE = 32
MARGIN = 6
"""Black pixels on each side, as in LeNet-5's data: 20x20 in the middle of 32x32."""
EPOCHS = 30
BATCH = 64
SEED = 0


@dataclass(frozen=True)
class Digits:
    """Images (N, 32, 32) uint8 and labels (N,) int64; the held-out fifth (`x_test`, `y_test`) is not used for training."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def digits() -> Digits:
    """1,797 digits written by 43 people (Alpaydin and Kaynak, UCI 1998), enlarged from 8x8 pixels, split by a fixed seed."""
    images, labels = load_digits(return_X_y=True)
    small = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    large = np.stack([np.pad(_enlarged(one), MARGIN) for one in small])
    parts = train_test_split(large, labels.astype(np.int64), test_size=0.2, random_state=SEED, stratify=labels)
    return Digits(parts[0], parts[2], parts[1], parts[3])


def _enlarged(image: np.ndarray) -> np.ndarray:
    side = SIDE - 2 * MARGIN
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def contract(data: Digits) -> InputContract:
    """The teacher's input contract: one channel, normalised by the mean and standard deviation of the training images."""
    pixels = data.x_train / 255
    return InputContract(1, SIDE, SIDE, (round(float(pixels.mean()), 4),), (round(float(pixels.std()), 4),))


def normalised(images: np.ndarray, reads: InputContract) -> Tensor:
    """Images (N, H, W) uint8 as the network reads them: (N, 1, H, W) float32."""
    return (torch.from_numpy(images)[:, None].float() / 255 - reads.mean[0]) / reads.std[0]


def train(data: Digits, reads: InputContract) -> nn.Module:
    """A LeNet-5 after 30 epochs of cross-entropy, each batch shifted by up to two pixels."""
    torch.manual_seed(SEED)
    network = networks.build("lenet5", 10, reads)
    image, label = normalised(data.x_train, reads), torch.from_numpy(data.y_train)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    steps = EPOCHS * (len(label) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(label)).split(BATCH)[: len(label) // BATCH]:
            down, right = torch.randint(-2, 3, (2,)).tolist()
            moved = image[chosen].roll((down, right), (2, 3))
            loss = nn.functional.cross_entropy(network(moved), label[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def write(network: nn.Module, data: Digits, folder: Path) -> None:
    """Write the files that are uploaded: the teacher's weights and the dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "teacher.safetensors")
    np.savez_compressed(folder / "digits.npz", **asdict(data))


if __name__ == "__main__":
    torch.set_num_threads(1)
    handwritten = digits()
    write(train(handwritten, contract(handwritten)), handwritten, Path(sys.argv[1]))
