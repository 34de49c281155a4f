"""Networks of a few bytes, made on the spot: they see red, in the output formats of well-known face networks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

SCALES = {
    # What (pixel - mean) * scale makes of red, green and blue, and what brings a red cell to 0.9, others to 0.
    "scrfd": {"colour": "RGB", "mean": 127.5, "scale": 1 / 127.5, "offset": -2.1},
    "yunet": {"colour": "BGR", "mean": 0.0, "scale": 1.0, "offset": 0.0},
}
STRIDES = (8, 16, 32)


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.outputs: list[Any] = []

    def weight(self, name: str, value: Any, kind: Any = np.float32) -> str:
        self.weights.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def add(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def output(self, name: str, source: str, shape: list[int]) -> None:
        self.add("Reshape", [source, self.weight(f"{name}_shape", shape, np.int64)], name)
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(shape)))

    def save(self, path: Path, name: str, shape: list[Any]) -> None:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "red", [value], self.outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))


def detector(path: Path, style: str, batch_axis: bool = True) -> None:
    """Write a detector in the style of `scrfd` (two anchors) or `yunet`.

    A cell that is red all over has score 0.9 (SCRFD: at its second anchor). Its box reaches one stride to each side of
    its corner in the SCRFD style, and is two strides wide and high about its middle in the YuNet style. All five points
    are a quarter of a stride right of and half a stride below the corner.
    """
    graph = _Graph()
    form = SCALES[style]
    unit = 1.0 if style == "scrfd" else 1 / 255
    red_green_blue = np.array([1, -1, -1]) * unit
    weights = red_green_blue if form["colour"] == "RGB" else red_green_blue[::-1]
    anchors = 2 if style == "scrfd" else 1
    graph.weight("weights", np.reshape(weights, (1, 3, 1, 1)))
    graph.weight("offset", [form["offset"]])
    graph.add("Relu", [graph.add("Conv", ["in", "weights", "offset"], "seen")], "red")
    if style == "yunet":
        graph.add("Mul", ["red", graph.weight("nine_tenths", 0.9)], "score")
        graph.add("Mul", ["red", graph.weight("none", 0.0)], "zero")
    else:
        graph.add("Mul", ["red", graph.weight("none", 0.0)], "zero")
        graph.add("Concat", ["zero", "red"], "score", axis=1)
    for stride in STRIDES:

        def put(kind: str, source: str, size: int, stride: int = stride) -> None:
            pooled = graph.add(
                "AveragePool",
                [source],
                f"{kind}_{stride}_pooled",
                kernel_shape=[stride, stride],
                strides=[stride, stride],
            )
            last = graph.add("Transpose", [pooled], f"{kind}_{stride}_last", perm=[0, 2, 3, 1])
            shape = [0, -1, size] if batch_axis else [-1, size]
            # Anchors are folded into the cells, so the batch cannot be copied from the input's shape.
            if batch_axis and anchors == 2:
                graph.add(
                    "Reshape", [last, graph.weight(f"{kind}_{stride}_flat", [0, -1], np.int64)], f"{kind}_{stride}_2d"
                )
                graph.output(f"{kind}_{stride}", f"{kind}_{stride}_2d", shape)
            else:
                graph.output(f"{kind}_{stride}", last, shape)

        def constant(kind: str, values: list[float], stride: int = stride) -> str:
            bias = graph.weight(f"{kind}_{stride}_bias", values * anchors)
            zeros = graph.weight(f"{kind}_{stride}_zeros", np.zeros((len(values) * anchors, 1, 1, 1)))
            return graph.add("Conv", ["zero", zeros, bias], f"{kind}_{stride}_everywhere")

        points = [0.25, 0.5] * 5
        if style == "scrfd":
            put("score", "score", 1)
            put("bbox", constant("bbox", [1.0, 1.0, 1.0, 1.0]), 4)
        else:
            put("cls", "score", 1)
            put("obj", "score", 1)
            put("bbox", constant("bbox", [0.5, 0.5, float(np.log(2)), float(np.log(2))]), 4)
        put("kps", constant("kps", points), 10)
    graph.save(path, "in", ["batch" if batch_axis else 1, 3, "height", "width"])


def analyzer(path: Path) -> None:
    """Write an analyzer of 32 px crops, RGB of -1..1: `redness` is 1 for red, 0.5 for black, 0 for cyan."""
    graph = _Graph()
    graph.weight("weights", np.reshape([0.25, -0.125, -0.125], (1, 3, 1, 1)))
    graph.weight("offset", [0.5])
    graph.add("GlobalAveragePool", [graph.add("Conv", ["in", "weights", "offset"], "seen")], "mean")
    graph.output("redness", "mean", [-1])
    graph.save(path, "in", ["batch", 3, 32, 32])


def manifest(folder: Path, *entries: dict[str, Any]) -> Path:
    """Write a manifest with these entries, their hashes filled in, and return its path."""
    for entry in entries:
        entry.setdefault("sha256", hashlib.sha256((folder / entry["file"]).read_bytes()).hexdigest())
        for key, value in {
            "version": "1",
            "date": "2026-11-21",
            "licence": "none",
            "training_data": [],
            "accuracy": {},
        }.items():
            entry.setdefault(key, value)
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump({"models": list(entries)}))
    return path


def make_endless(path: Path) -> None:
    """Change a detector in the style of `yunet`, so that it computes for ever if a patch of the picture is all red."""
    model = onnx.load(str(path))
    graph = model.graph
    item = helper.make_tensor_value_info("item", TensorProto.FLOAT, None)
    turn = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["item"], ["same"])],
        "turn",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            item,
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, None),
        ],
    )
    for name, value, kind in (("half", 0.5, np.float32), ("for_ever", 2**62, np.int64), ("never", 0, np.int64)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
    index = next(i for i, node in enumerate(graph.node) if "red" in node.output) + 1
    for node in graph.node[index:]:
        node.input[:] = ["red_at_last" if name == "red" else name for name in node.input]
    inserted = [
        helper.make_node("AveragePool", ["red"], ["patches"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("ReduceMax", ["patches"], ["reddest"], keepdims=0),
        helper.make_node("Greater", ["reddest", "half"], ["is_red"]),
        helper.make_node("Where", ["is_red", "for_ever", "never"], ["turns"]),
        helper.make_node("Loop", ["turns", "", "red"], ["red_at_last"], body=turn),
    ]
    for offset, node in enumerate(inserted):
        graph.node.insert(index + offset, node)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
