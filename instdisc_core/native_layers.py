"""Calls a Keras network with the framework's own functions in place of single layers.

A network is a graph of layers. Keras runs each through Python code that takes longer than a small
layer itself. On PyTorch it also computes batch normalization from ten operations, and copies the
images of every convolution twice. A backend may state how its framework computes a layer: one
function of the layer, its input and whether it trains, in a dict of its entry point. The network,
its weights and its file stay Keras's.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

import keras

from instdisc_core.types import Tensor
from instdisc_core.validation import require

GROUP = "instdisc_core.layers"

# Of a layer, its input, and whether it trains. NotImplemented where the layer's settings ask for
# more than the function computes.
NativeLayer = Callable[[Any, Any, bool], Any]


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


def native_layers(backend: str) -> Mapping[type, NativeLayer]:
    """The native functions by class of the layer; none where the backend states none."""
    if backend not in _loaded:  # a dict, which torch.compile reads without tracing what fills it
        found = {point.name: point for point in entry_points(group=GROUP)}
        _loaded[backend] = found[backend].load() if backend in found else {}
    return _loaded[backend]


_loaded: dict[str, Mapping[type, NativeLayer]] = {}


def _graph(network: Any) -> Any:
    """The network as a graph of layers with one input, or None; subclasses may differ."""
    if type(network) is keras.Sequential:
        network = getattr(network, "_functional", None)
    functional = type(network).__name__ == "Functional" and hasattr(network, "_nodes_by_depth")
    return network if functional and len(network.inputs) == 1 else None


def _run(graph: Any, native: Mapping[type, NativeLayer], training: bool, x: Tensor) -> Tensor:
    """The graph's output; each tensor is let go after the last layer that reads it.

    Keras keeps all tensors to the end. Inference then takes as much memory as training, and each
    layer writes to new memory, which takes longer. A nested network counts as one layer.
    """
    graph._assert_input_compatibility(x)
    (x,) = graph._standardize_inputs(x)
    nodes, last_reads = _schedule(graph)
    values = {id(graph.inputs[0]): x}
    del x
    for node, read in zip(nodes, last_reads, strict=True):
        args, kwargs = node.arguments.fill_in(values)
        outputs = _layer(native, training, node.operation, *args, **kwargs)
        values |= zip(map(id, node.outputs), keras.tree.flatten(outputs), strict=False)
        for tensor in read:
            del values[tensor]
    outputs = [values[id(tensor)] for tensor in graph.outputs]
    outputs = keras.tree.pack_sequence_as(graph._outputs_struct, outputs)
    return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs


def _schedule(graph: Any) -> tuple[list[Any], list[set[int]]]:
    """The nodes of a graph in order, and for each the tensors that none after it reads."""
    by_depth = graph._nodes_by_depth
    nodes = [n for depth in sorted(by_depth, reverse=True) for n in by_depth[depth]]
    nodes = [node for node in nodes if not node.is_input]
    read, last_reads = {id(tensor) for tensor in graph.outputs}, []
    for node in reversed(nodes):
        tensors = {id(tensor) for tensor in (*node.input_tensors, *node.outputs)}
        last_reads.append(tensors - read)
        read |= tensors
    return nodes, last_reads[::-1]


def _layer(
    native: Mapping[type, NativeLayer], trains: bool, layer: Any, *args: Any, **kwargs: Any
) -> Any:
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
