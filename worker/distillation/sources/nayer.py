"""NAYER: a generator that reads embeddings of the classes through a layer of random weights."""

from dataclasses import dataclass

from worker.distillation.synthesis.embedded import EmbeddedParameters, EmbeddedSource
from worker.distillation.synthesis.latents import GeneratorParameters


class Nayer(EmbeddedSource):
    """Passes each class's embedding to a generator through a linear layer that is drawn anew every round: the layer is
    the source of randomness, and the embedding sets the class of the image.

    Tran et al., "NAYER: Noisy Layer Data Generation for Efficient and Effective Data-free Knowledge Distillation",
    arXiv:2310.00258. One layer serves one image of every class; a batch has one layer for each such set. Without
    uploaded embeddings, orthogonal ones are used; the authors' come from a text encoder. The preset `paper` is that of the
    authors' scripts for CIFAR-10 (tmtuan1307/NAYER, `scripts/nayer_100.sh`: 20 epochs of 10 rounds before the students'
    first step, then 2 rounds in each epoch of 400 steps; CIFAR-100 has 40 iterations); their students learn by SGD at
    temperature 20 for 100 to 300 epochs. The teacher reads the images shifted by rolling; theirs are padded and cropped, and
    flipped.
    """

    paper = "arXiv:2310.00258"
    presets = {
        "fast": {
            "generator_resolution": "half", "generator_width": 32, "generator_output": "contract", "generator_batch": 256,
            "iterations": 20, "initial_rounds": 6, "student_steps_per_round": 50, "rounds": None, "generator_life": 20,
            "warm_up_generator_life": None, "pool_images": 32_768, "augmentation_probability": 0.5, "latent": 256,
            "layer": "uniform", "statistics_momentum": 0.0,
        },
        "paper": {
            "generator_resolution": "full", "generator_width": 128, "generator_output": "sigmoid", "generator_batch": 400,
            "iterations": 30, "initial_rounds": 200, "student_steps_per_round": 200, "rounds": None, "generator_life": 20,
            "warm_up_generator_life": 100, "pool_images": 65_536, "augmentation_probability": 0.5, "latent": 1000,
            "layer": "normal", "statistics_momentum": 0.9,
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(EmbeddedParameters, GeneratorParameters):
        """Those of the embeddings and of the generator."""
