"""`student.py`: it needs torch alone, and gives exactly the outputs of the student."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation import networks, student_file
from worker.distillation.contract import InputContract
from worker.distillation.export import safetensors
from worker.distillation.export.card import Card
from worker.distillation.export.portable import portable
from worker.distillation.networks.ensemble import Ensemble
from worker.distillation.student_file.expressions import CannotBeWritten
from worker.distillation.student_file.loading import normalised, read_safetensors

NAMES = ("a", "b", "ü", "it's", "e")
DETECTORS = ("tiny_faster_rcnn", "tiny_retinanet", "tiny_fcos")
LAYERS = [
    {"conv": 4, "padding": 1, "name": "features.0"},
    {"activation": "relu"},
    {"conv": 4, "padding": 1, "name": "features.3"},
    {"add": "activation1"},
    {"pool": "max"},
    {"flatten": True},
    {"linear": None, "name": "classifier.1"},
]
NEEDED_BY_TORCH = (
    "torch", "torchgen", "functorch", "triton", "nvidia", "typing_extensions.py", "sympy", "mpmath", "networkx", "jinja2",
    "markupsafe", "filelock", "fsspec", "setuptools", "torch.libs",
)  # fmt: skip
ALONE = """
import sys, importlib, pathlib, warnings
warnings.simplefilter("ignore")
sys.path += sys.argv[1:3]
import torch
for library in sys.argv[3].split():
    try:
        importlib.import_module(library)
    except ImportError:
        continue
    sys.exit(f"{library} can be imported")
folder = pathlib.Path(sys.argv[2])
for stem in sys.argv[4:]:
    module = importlib.import_module(stem)
    network = module.load(folder / f"{stem}.safetensors")
    torch.save(network(module.preprocess(torch.load(folder / f"{stem}.images"))), folder / f"{stem}.outputs")
"""


def contract_of(channels: int, size: int) -> InputContract:
    return InputContract(channels, size, size, (0.5, 0.4, 0.3)[:channels], (0.2, 0.25, 0.3)[:channels])


def trained(network: nn.Module, contract: InputContract) -> nn.Module:
    """The network with other statistics and weights than those it was built with."""
    network.train()
    with torch.no_grad():
        network(torch.randn(4, contract.channels, contract.height, contract.width))
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return network


def write(stem: str, network: nn.Module, contract: InputContract, folder: Path) -> Path:
    card = Card(stem, {}, NAMES, contract, "classification", "logits")
    weights = folder / f"{stem}.safetensors"
    safetensors.write(network, card, weights)
    student_file.write(network, card, weights, folder / f"{stem}.py")
    return folder / f"{stem}.py"


def outputs_alone(
    folder: Path, students: dict[str, tuple[nn.Module, InputContract]], more: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """The outputs of each `STEM.py` for random images, from a process that can import torch, what torch needs and `more`."""
    packages = folder / "packages"
    packages.mkdir()
    for name in (*NEEDED_BY_TORCH, *more):
        place = Path(torch.__file__).parents[1] / name
        if place.exists():
            (packages / name).symlink_to(place)
    for stem, (_, contract) in students.items():
        torch.save(images_of(contract), folder / f"{stem}.images")
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    missing = " ".join(sorted({"worker", "timm", "torchvision", "safetensors", "numpy"} - set(more)))
    command = [sys.executable, "-I", "-S", "-c", ALONE, str(packages), str(folder), missing, *students]
    done = subprocess.run(command, env=threads, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return {stem: torch.load(folder / f"{stem}.outputs") for stem in students}


def images_of(contract: InputContract) -> Tensor:
    shape = (3, contract.channels, contract.height, contract.width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def expected(network: nn.Module, contract: InputContract) -> Tensor:
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (contract.mean, contract.std))
    with torch.no_grad():
        return portable(network)((images_of(contract).float() / 255 - mean) / std)


def assert_equal_alone(students: dict[str, tuple[nn.Module, InputContract]], folder: Path) -> None:
    for stem, (network, contract) in students.items():
        write(stem, network, contract, folder)
    for stem, outputs in outputs_alone(folder, students).items():
        assert torch.equal(outputs, expected(*students[stem])), stem


def members() -> tuple[Ensemble, InputContract]:
    contract = contract_of(3, 16)
    other = InputContract(3, 16, 16, (0.1, 0.2, 0.3), (1.0, 0.9, 0.8))
    parts = [networks.build(name, 5, contract) for name in ("resnet8_cifar", "mlp")]
    parts.append(networks.build("resnet18_cifar", 5, contract, {"width": 4}))  # its class has the name of the first's
    return Ensemble(parts, [contract, other, contract], weights=[3.0, 2.0, 1.0], temperature=2.0), contract


def with_the_teachers_classifier(pair: str) -> tuple[nn.Module, InputContract]:
    trial = Trial.of(pair, objective_of("similarity_head"))
    deployed = trial.objective.deploy(trial.student.network, trial.teacher.network)
    _, channels, size = trial.batch.image.shape[:3]
    return deployed, contract_of(channels, size)


def test_outputs_are_equal_in_a_process_with_torch_alone(tmp_path: Path):
    torch.manual_seed(0)
    small, maps = contract_of(1, 16), contract_of(3, 32)
    students = {
        "lenet": (trained(networks.build("lenet5_half", 5, small), small), small),
        "resnet": (
            trained(networks.build("resnet14_cifar", 5, contract_of(3, 16)), contract_of(3, 16)),
            contract_of(3, 16),
        ),
        "layers": (networks.build("layers", 5, small, {"layers": LAYERS}), small),
        "mlp": (networks.build("mlp", 5, small, {"hidden": [7], "bias": False}), small),
        "ensemble": members(),
        **{name: (trained(networks.build(name, 5, maps, {"width": 4}), maps), maps) for name in ("fpn", "fpn_depth")},
        "head_of_maps": with_the_teachers_classifier("residual"),
        "head_of_vectors": with_the_teachers_classifier("plain"),
    }
    assert_equal_alone(students, tmp_path)


@pytest.mark.slow
def test_outputs_of_every_network_of_the_catalogue_are_equal(tmp_path: Path):
    torch.manual_seed(0)
    students = {}
    for name in networks.names():
        if "_timm" in name or name in DETECTORS:
            continue  # these need timm, or torchvision as in test_detectors.py
        for channels in (1, 3):
            contract = contract_of(channels, 64 if name == "alexnet" else 32)
            students[f"{name}_{channels}"] = trained(networks.build(name, 5, contract), contract), contract
    assert_equal_alone(students, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "torchvision/squeezenet1_1",
        "timm/test_resnet",
        pytest.param("torchvision_segmentation/lraspp_mobilenet_v3_large", marks=pytest.mark.slow),
    ],
)
def test_a_librarys_network_is_built_by_its_library(name: str, tmp_path: Path):
    contract = contract_of(3 if "segmentation" in name else 1, 64)
    network = networks.build(name, 5, contract)
    path = write("student", network, contract, tmp_path)
    library = name.partition("/")[0].partition("_")[0]
    assert f"built and loaded with PyTorch and {library}." in path.read_text().splitlines()[0]
    assert f"import {library}\n" in path.read_text() and "worker" not in path.read_text()


@pytest.mark.parametrize(
    ("name", "place", "layers"),
    [
        ("timm/test_resnet", "fc", [{"linear": 9}, {"norm": "batch"}, {"activation": "relu"}, {"linear": None}]),
        ("torchvision/mobilenet_v3_small", "classifier", [{"linear": 9}, {"linear": None}]),  # fewer than before
        ("torchvision/mobilenet_v3_small", "classifier.3", [{"linear": 9}, {"activation": "tanh"}, {"linear": None}]),
    ],
)
def test_a_head_in_place_of_the_classifier_is_written_as_a_whole(
    name: str, place: str, layers: list[dict[str, object]], tmp_path: Path
):
    contract = contract_of(3, 64)
    network = networks.build(name, 5, contract, {"head": layers, "head_at": place})
    text = write("student", trained(network, contract), contract, tmp_path).read_text()  # which runs the file
    assert "out_features=9" in text and "worker" not in text


def test_the_command_names_the_classes_of_an_image(tmp_path: Path):
    contract = contract_of(3, 16)
    network = trained(networks.build("resnet8_cifar", 5, contract), contract)
    path = write("student", network, contract, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    done = subprocess.run([sys.executable, path, tmp_path / "image.png"], capture_output=True, text=True, check=True)
    mean, std = np.array(contract.mean, np.float32), np.array(contract.std, np.float32)
    image = torch.from_numpy(((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1)[None])
    with torch.no_grad():
        probabilities = portable(network)(image).softmax(1)[0]
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [name for _, name in lines] == [NAMES[place] for place in probabilities.argsort(descending=True)]
    assert [float(value) for value, _ in lines] == pytest.approx(
        probabilities.sort(descending=True)[0].tolist(), abs=1e-5
    )


def test_own_reader_reads_what_safetensors_writes(tmp_path: Path):
    state = {
        "a": torch.randn(2, 3), "half": torch.randn(4).half(), "b16": torch.randn(4).bfloat16(), "count": torch.tensor(7),
        "empty": torch.zeros(0, 2), "flag": torch.tensor([True, False]),
    }  # fmt: skip
    path = tmp_path / "weights.safetensors"
    save_file(state, path, {"format": "pt"})
    read = read_safetensors(path)
    assert read.keys() == state.keys()
    assert all(read[name].dtype == each.dtype and torch.equal(read[name], each) for name, each in state.items())
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="ends within the tensor"):
        read_safetensors(path)


def test_images_of_another_type_or_shape_are_refused():
    with pytest.raises(ValueError, match="must be uint8"):
        normalised(torch.zeros(1, 1, 4, 4), (1, 4, 4), (0.5,), (0.5,))
    with pytest.raises(ValueError, match=r"must have the shape \(batch, 1, 4, 4\)"):
        normalised(torch.zeros(1, 1, 4, 5, dtype=torch.uint8), (1, 4, 4), (0.5,), (0.5,))


class Stranger(nn.Module):
    """A module that is neither PyTorch's nor the project's."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_network_that_cannot_be_written_is_refused_with_the_reason(tmp_path: Path):
    network = nn.Sequential(nn.Flatten(), Stranger(), nn.Linear(16, 5))
    with pytest.raises(CannotBeWritten, match=r"no code for modules of the class .*Stranger"):
        write("student", network, contract_of(1, 4), tmp_path)
    assert not (tmp_path / "student.py").exists()


def test_code_that_computes_something_else_is_refused(tmp_path: Path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    network[1].register_forward_hook(lambda module, args, output: output + 1)
    with pytest.raises(CannotBeWritten, match="other outputs"):
        write("student", network, contract_of(1, 4), tmp_path)
    assert not (tmp_path / "student.py").exists()
