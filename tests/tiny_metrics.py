"""Tiny random models of the real classes, in the folders and files in which the real ones come.

The image processors are the published ones, so preparation is tested at its true sizes. The face
networks are hand-written graphs with the layout of SCRFD and ArcFace files: the detector finds
red squares of 32 pixels and blue ones of 8 on its canvas of 640, their five points on the template.
"""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, Dinov2Config, Dinov2Model

from recast_probe.metrics import TextMetric
from recast_probe.metrics.faces import TEMPLATE

# As published with facebook/dinov2-base and openai/clip-vit-large-patch14; the second in the
# older form with plain numbers for sizes.
DINO_PROCESSOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "BitImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 256},
}
CLIP_PROCESSOR = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
TEXT_TOKENS = 12
EMBEDDING = 16


def save_dinov2(folder: Path, seed: int = 0) -> Path:
    """A folder with a DINOv2 of 1 layer and width 32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = Dinov2Config(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=224,
            mlp_ratio=2,
            initializer_range=0.3,  # far enough from linear that pictures differ
        )
        Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(DINO_PROCESSOR))
    return folder


def save_clip(folder: Path, seed: int = 0) -> Path:
    """A folder with a CLIP of 1 layer a side, a tokenizer of letters, and 12 text tokens."""
    letters = list(string.ascii_lowercase + string.digits)
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    vocabulary = {word: index for index, word in enumerate(words)}
    small = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {"vocab_size": len(words), "max_position_embeddings": TEXT_TOKENS}
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CLIPConfig(
            text_config=small | text | special,
            vision_config=small | {"image_size": 224, "patch_size": 32},
            projection_dim=24,
        )
        CLIPModel(config).save_pretrained(folder)
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TEXT_TOKENS).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(CLIP_PROCESSOR))
    return folder


def save_auraface(folder: Path, seed: int = 0) -> Path:
    """A folder with the two files of AuraFace that matter."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(detection_graph(), folder / "scrfd_10g_bnkps.onnx")
    _save(recognition_graph(seed), folder / "glintr100.onnx")
    return folder


def detection_graph() -> onnx.GraphProto:
    """Nine outputs, two anchors a place; see the module's text."""
    nodes, constants, outputs = [], {}, {"score": [], "box": [], "points": []}
    # which colour a stride answers to: weights of red, green, blue
    colours = {8: (-1.0, 0.0, 1.0), 16: (0.0, 0.0, 0.0), 32: (1.0, 0.0, -1.0)}
    # the second anchor sees the same a little less surely, and a little less high
    biases = {"score": [-8.0, -8.5], "box": [0, 0, 1, 1, 0, 0, 1, 0.9]}
    biases["points"] = [*(TEMPLATE / 112).ravel(), *(TEMPLATE / 112).ravel()]
    for stride, colour in colours.items():
        for kind, width in (("score", 1), ("box", 4), ("points", 10)):
            name = f"{kind}_{stride}"
            weight = np.zeros((2 * width, 3, stride, stride), np.float32)
            if kind == "score":
                weight += 8 * np.array(colour, np.float32)[:, None, None] / stride**2
            constants[f"{name}_w"] = weight
            constants[f"{name}_b"] = np.array(biases[kind], np.float32)
            constants[f"{name}_shape"] = np.array([-1, width], np.int64)
            nodes.append(
                helper.make_node(
                    "Conv",
                    ["input.1", f"{name}_w", f"{name}_b"],
                    [f"{name}_map"],
                    kernel_shape=[stride, stride],
                    strides=[stride, stride],
                )
            )
            rows = f"{name}_map"
            if kind == "score":
                nodes.append(helper.make_node("Sigmoid", [rows], [f"{name}_sure"]))
                rows = f"{name}_sure"
            nodes.append(helper.make_node("Transpose", [rows], [f"{name}_t"], perm=[0, 2, 3, 1]))
            nodes.append(helper.make_node("Reshape", [f"{name}_t", f"{name}_shape"], [name]))
            outputs[kind].append(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])
            )
    return helper.make_graph(
        nodes,
        "detection",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, None, None])],
        [*outputs["score"], *outputs["box"], *outputs["points"]],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )


def recognition_graph(seed: int = 0) -> onnx.GraphProto:
    """Means of 8 x 8 places, then a random linear map to 16 numbers."""
    random = np.random.default_rng(seed)
    matrix = random.standard_normal((3 * 8 * 8, EMBEDDING)).astype(np.float32)
    return helper.make_graph(
        [
            helper.make_node(
                "AveragePool", ["input.1"], ["means"], kernel_shape=[14, 14], strides=[14, 14]
            ),
            helper.make_node("Flatten", ["means"], ["flat"]),
            helper.make_node("MatMul", ["flat", "matrix"], ["683"]),
        ],
        "recognition",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [None, 3, 112, 112])],
        [helper.make_tensor_value_info("683", TensorProto.FLOAT, [None, EMBEDDING])],
        [numpy_helper.from_array(matrix, "matrix")],
    )


def _save(graph: onnx.GraphProto, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    onnx.save(model, path)


class Words(TextMetric):
    """The same value for every picture, of which its provenance tells nothing."""

    name = "words"

    def __init__(self, value):
        self.value = value

    def score_text(self, image, prompt):
        return float(self.value)

    def provenance(self):
        return {"metric": self.name}
