"""Everything that depends on which Keras backend runs. No other module asks."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
from keras import ops


def input_gradient(function: Callable, x: Any) -> Any:
    """Returns the gradient of `sum(function(x))` with respect to `x`.

    Works eagerly, inside a compiled step and inside `predict`, on every backend. The result is a
    constant for whatever comes after: no gradient flows through it, neither into `x` nor into the
    weights that `function` uses.

    Args:
        function: maps a tensor of `x`'s shape to a tensor of any shape. It must not update state.
        x: floating-point tensor.

    Returns:
        Tensor of the shape and dtype of `x`.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.stop_gradient(tf.convert_to_tensor(x))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            value = function(x)
        return tf.stop_gradient(tape.gradient(value, x, unconnected_gradients="zero"))
    if backend == "jax":
        import jax

        return jax.lax.stop_gradient(jax.grad(lambda image: ops.sum(function(image)))(jax.lax.stop_gradient(x)))
    if backend == "torch":
        import torch

        # `predict` and `evaluate` run without gradient recording; this one is always needed.
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = function(x).sum()
            if not value.requires_grad:
                return torch.zeros_like(x)
            (gradient,) = torch.autograd.grad(value, x, allow_unused=True)
        return torch.zeros_like(x) if gradient is None else gradient.detach()
    raise RuntimeError(f"keras_semimed runs on the backends tensorflow, jax and torch, not on {backend!r}.")


def run_step(model: keras.Model, step: Callable[..., Any], arguments: tuple, kept: Sequence[keras.Variable]) -> Any:
    """Runs Keras' `train_step` and `model.after_step()` behind it, inside the compiled train step.

    Args:
        model: the model whose `train_step` is running.
        step: Keras' own `train_step`.
        arguments: its arguments: a batch, on JAX the state before it.
        kept: variables that are to stay as they were where the step makes them infinite or NaN, and where the scale of
            the loss falls: the optimizer has left the step out then, although a kernel that takes NaN for 0
            (TensorFlow's for float16) may have left finite numbers here.

    Returns:
        What `step` returned: logs, and on JAX also the state, that of behind `after_step`.
    """
    scale = getattr(model.optimizer, "dynamic_scale", None) if kept else None
    applied: Any = True
    if keras.backend.backend() != "jax":
        before = [ops.copy(variable.value) for variable in kept]
        before_scale = None if scale is None else ops.copy(scale.value)
        result = step(*arguments)
        if scale is not None:
            applied = scale.value >= before_scale
        for variable, value in zip(kept, before, strict=True):
            variable.assign(_if_applied(applied, variable.value, value))
        model.after_step()
        return result
    logs, (trainable, non_trainable, optimizer_state, metrics_state) = step(*arguments)
    variables = model.trainable_variables + model.non_trainable_variables
    values = list(trainable) + list(non_trainable)
    if kept:
        names = {id(variable) for variable in kept}
        before = [*arguments[0][0], *arguments[0][1]]
        if scale is not None:
            place = [id(variable) for variable in model.optimizer.variables].index(id(scale))
            applied = optimizer_state[place] >= arguments[0][2][place]
        values = [
            _if_applied(applied, new, old) if id(variable) in names else new
            for variable, new, old in zip(variables, values, before, strict=True)
        ]
    with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
        model.after_step()
    updated = [scope.get_current_value(variable) for variable in variables]
    updated = [old if new is None else new for old, new in zip(values, updated, strict=True)]
    count = len(trainable)
    return logs, (updated[:count], updated[count:], optimizer_state, metrics_state)


def portable(config: Any) -> Any:
    """A serialized object with Keras' own optimizers where PyTorch's stand, which no other backend can train with.

    Keras on PyTorch makes `keras.optimizers.SGD` an optimizer of PyTorch's, and writes down that one.
    """
    if isinstance(config, dict):
        if str(config.get("module")).startswith("keras.src.backend.torch.optimizers."):
            config = {**config, "module": "keras.optimizers", "registered_name": None}
        return {name: portable(value) for name, value in config.items()}
    return [portable(value) for value in config] if isinstance(config, list) else config


def _if_applied(applied: Any, value: Any, otherwise: Any) -> Any:
    return ops.where(ops.logical_and(applied, ops.all(ops.isfinite(value))), value, otherwise)


@contextlib.contextmanager
def state_kept(model: keras.Model) -> Iterator[None]:
    """Gives a model its state back when its first step fails: Keras on JAX has taken it away from the model by then.

    Otherwise a wrong argument of `evaluate` would cost a trained model its weights.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *model.metrics_variables, *(optimizer.variables if optimizer else ())]
    values = [variable.value for variable in variables]
    try:
        yield
    except BaseException:
        for variable, value in zip(variables, values, strict=True):
            if variable._value is None and not value.is_deleted():
                variable.assign(value)
        raise


def no_gradients() -> contextlib.AbstractContextManager:
    """Keeps nothing for a backward pass while it lasts: PyTorch would, outside of `predict`."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def replicas(model: keras.Model) -> int:
    """The number of devices among which a `tf.distribute` strategy splits each batch of a model; 1 without one."""
    if keras.backend.backend() != "tensorflow":
        return 1
    return model.distribute_strategy.num_replicas_in_sync


def compiles_steps() -> bool:
    """Whether the first training step waits for a compiler; PyTorch runs steps as they are."""
    return keras.backend.backend() != "torch"


def describe_runtime() -> dict[str, str]:
    """Returns the backend, the devices it sees and the versions that make a run repeatable."""
    backend = keras.backend.backend()
    devices = ", ".join(_devices(backend)) or "cpu"
    versions = {}
    for package in ("keras", "keras-hub", "tensorflow", "jax", "torch", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {"backend": backend, "devices": devices, **versions}


def _devices(backend: str) -> list[str]:
    if backend == "torch":
        import torch

        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return keras.distribution.list_devices()


def enable_determinism() -> None:
    """Makes two runs with one seed give the same bits, at some cost in speed on TensorFlow and PyTorch."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        torch.use_deterministic_algorithms(True, warn_only=True)


def onnx_converters() -> tuple[str, ...]:
    """Libraries through which the running backend writes ONNX; PyTorch does it by itself."""
    return {"tensorflow": ("tf2onnx",), "jax": ("jax2onnx",)}.get(keras.backend.backend(), ())


def run_exported(path: Path, format: str, images: Any) -> Any:
    """Runs an exported model with the runtime of its format, whichever backend runs.

    Args:
        path: The exported file, or the folder of a SavedModel.
        format: `"tf_saved_model"`, `"litert"` or `"onnx"`.
        images: `(N, S, S, 3)` float32 NumPy array in 0..255.

    Returns:
        The outputs, as a dict by name or as a list.
    """
    return {"tf_saved_model": _saved_model, "litert": _litert, "onnx": _onnx}[format](path, images)


def _saved_model(path: Path, images: Any) -> Any:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # held, or its variables would be gone
    return loaded.serve(images)


def _litert(path: Path, images: Any) -> list[Any]:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_path=str(path))
    given = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(given, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given, images)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def _onnx(path: Path, images: Any) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})
