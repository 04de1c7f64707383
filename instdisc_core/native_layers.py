"""Calls a Keras network with the framework's own functions in place of single layers.

A network is a graph of layers. Keras runs each through Python code that takes longer than a small
layer itself. On PyTorch it also computes batch normalization from ten operations, and copies the
images of every convolution twice. A backend may state how its framework computes a layer: one
function of the layer, its input and whether it trains, in a dict of its entry point. A function for
two classes computes a layer of the second that alone reads one of the first. The network, its
weights and its file stay Keras's.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, NamedTuple

import keras

from instdisc_core.types import Tensor
from instdisc_core.validation import require

GROUP = "instdisc_core.layers"

# Of a layer, or of two, the input, and whether it trains. NotImplemented where their settings ask
# for more than the function computes.
NativeLayer = Callable[[Any, Any, bool], Any]
NativeLayers = Mapping[Any, NativeLayer]  # by the class of a layer, or a pair of classes


def call(
    network: Any,
    x: Tensor,
    training: bool | None = None,
    on_ranks: Mapping[type, NativeLayer] | None = None,
) -> Tensor:
    """The output of a network, of any kind.

    Layers without a native function, and networks that are not graphs of layers, run as in Keras.
    Functions in ``on_ranks`` take the place of native ones; see ``Communicator.layers``.
    """
    native = native_layers(keras.backend.backend())
    native = {**native, **on_ranks} if on_ranks else native
    graph = _graph(network)
    if training and on_ranks and graph is None:
        require_graph(network, on_ranks)
    if training is None or not native or graph is None or isinstance(x, keras.KerasTensor):
        return network(x, training=training)
    return _run(graph, native, training, x)


def require_graph(network: Any, on_ranks: Mapping[type, NativeLayer]) -> None:
    """Raise if layers of a network that is no graph should read the images of all ranks.

    Raises:
        ValueError: it names the first of them.
    """
    layers = network._flatten_layers() if hasattr(network, "_flatten_layers") else ()
    alone = [layer.name for layer in layers if type(layer) in on_ranks]
    require(
        not alone,
        f"{alone[:1]} in a {type(network).__name__} on several ranks",
        "a Sequential or functional network",
        "The layers of any other would see the images of one rank alone.",
    )


def native_layers(backend: str) -> NativeLayers:
    """The native functions by class of the layer, or classes; none where there are none."""
    if backend not in _loaded:  # a dict, which torch.compile reads without tracing what fills it
        found = {point.name: point for point in entry_points(group=GROUP)}
        _loaded[backend] = found[backend].load() if backend in found else {}
    return _loaded[backend]


_loaded: dict[str, NativeLayers] = {}


def _graph(network: Any) -> Any:
    """The network as a graph of layers with one input, or None; subclasses may differ."""
    if type(network) is keras.Sequential:
        network = getattr(network, "_functional", None)
    functional = type(network).__name__ == "Functional" and hasattr(network, "_nodes_by_depth")
    return network if functional and len(network.inputs) == 1 else None


class _Step(NamedTuple):
    """One step through a graph.

    Attributes:
        first, last: the nodes that it computes, one after the other; often the same.
        read: the tensors that no later step reads.
    """

    first: Any
    last: Any
    read: set[int]


def _run(graph: Any, native: NativeLayers, training: bool, x: Tensor) -> Tensor:
    """The graph's output; each tensor is let go after the last layer that reads it.

    Keras keeps all tensors to the end. Inference then takes as much memory as training, and each
    layer writes to new memory, which takes longer. A nested network counts as one layer.
    """
    graph._assert_input_compatibility(x)
    (x,) = graph._standardize_inputs(x)
    values = {id(graph.inputs[0]): x}
    del x
    for first, last, read in _schedule(graph, native):
        args, kwargs = first.arguments.fill_in(values)
        layers = [node.operation for node in dict.fromkeys((first, last))]
        outputs = _layers(native, training, layers, *args, **kwargs)
        values |= zip(map(id, last.outputs), keras.tree.flatten(outputs), strict=False)
        for tensor in read:
            del values[tensor]
    outputs = [values[id(tensor)] for tensor in graph.outputs]
    outputs = keras.tree.pack_sequence_as(graph._outputs_struct, outputs)
    return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs


def _schedule(graph: Any, native: NativeLayers) -> list[_Step]:
    """The steps through a graph, in order."""
    by_depth = graph._nodes_by_depth
    nodes = [n for depth in sorted(by_depth, reverse=True) for n in by_depth[depth]]
    nodes = [node for node in nodes if not node.is_input]
    outputs = [id(tensor) for tensor in graph.outputs]
    often = Counter([*outputs, *(id(tensor) for node in nodes for tensor in node.input_tensors)])
    alone = {id(node.outputs[0]): node for node in nodes if often[id(node.outputs[0])] == 1}
    steps, computed, seen = [], set(), set(outputs)
    for node in reversed(nodes):
        if id(node) in computed:
            continue
        before = alone.get(id(node.input_tensors[0]), node)
        both = type(before.operation), type(node.operation)
        first = before if both in native and len(node.input_tensors) == 1 else node
        computed.add(id(first))
        tensors = {id(tensor) for tensor in (*first.input_tensors, *node.outputs)}
        steps.append(_Step(first, node, tensors - seen))
        seen |= tensors
    return steps[::-1]


def _layers(
    native: NativeLayers, trains: bool, layers: list[Any], *args: Any, **kwargs: Any
) -> Any:
    """The output of one layer after another, by the native function of both if there is one."""
    both = tuple(map(type, layers))
    one_input = len(args) == 1 and not _is_masked(args[0], kwargs)
    if both in native and one_input and all(map(_is_plain, layers)):
        output = native[both](layers, args[0], trains)
        if output is not NotImplemented:
            return output
    output = _layer(native, trains, layers[0], *args, **kwargs)
    return _layer(native, trains, layers[1], output) if len(layers) > 1 else output


def _layer(native: NativeLayers, trains: bool, layer: Any, *args: Any, **kwargs: Any) -> Any:
    """One layer's output, by its native function where that computes it."""
    # Keras fills in these two, and as here a call's ``training`` replaces that of the graph.
    others = kwargs.keys() - {"training", "mask"}
    if len(args) == 1 and not others and not _is_masked(args[0], kwargs):
        graph = _graph(layer)
        if graph is not None:
            return _run(graph, native, trains, args[0])
        if type(layer) in native and _is_plain(layer):
            output = native[type(layer)](layer, args[0], trains)
            if output is not NotImplemented:
                return output
    if getattr(layer, "_call_has_training_arg", False):
        kwargs["training"] = trains
    return layer(*args, **kwargs)


def _is_masked(x: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether a mask comes with the input, as an argument or on one of its tensors."""
    tensors = x if isinstance(x, (list, tuple)) else [x]
    masks = [kwargs.get("mask"), *(getattr(tensor, "_keras_mask", None) for tensor in tensors)]
    return any(mask is not None for mask in masks)


def _is_plain(layer: Any) -> bool:
    """Whether a layer is only what its class computes."""
    return (
        layer.activity_regularizer is None
        and layer.quantization_mode is None
        and not getattr(layer, "lora_enabled", False)
    )
