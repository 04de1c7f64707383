"""What only PyTorch can show."""

import keras
import numpy as np
import pytest
from differentiation import numpy

from instdisc_core import (
    NCE,
    InstanceDiscrimination,
    MemoryBank,
    NonParametricSoftmax,
    native_layers,
)
from instdisc_core.testing import reference
from instdisc_core.testing.strategies import unit_rows

if keras.backend.backend() != "torch":
    pytest.skip("needs the torch backend", allow_module_level=True)

import torch

from instdisc_torch import TorchBankOps, bank_ops, fused, products, tiles
from instdisc_torch.joined_gradients import join_gradients, part_gradients

# PyTorch 2.11 warns that its profiler forgets what it measured before, which is nothing.
FORGETS = pytest.mark.filterwarnings("ignore:Warning. Profiler clears:UserWarning")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def on_a_cpu():
    """Also where there is a GPU."""
    with keras.device("cpu"):
        yield


@pytest.fixture
def one_thread():
    """What a kernel allocates for each thread does not count."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_update_writes_in_place(rng):
    bank = MemoryBank(50, 4, seed=0)
    address = bank.rows.value.data_ptr()
    bank.update([3, 7], unit_rows(rng, 2, 4))
    assert bank.rows.value.data_ptr() == address


def test_update_between_loss_and_backward_changes_no_gradient():
    bank = MemoryBank(50, 4, seed=0)
    gradients = []
    for move in (False, True):
        bank.rows.assign(unit_rows(np.random.default_rng(1), 50, 4))
        features = torch.tensor(unit_rows(np.random.default_rng(2), 2, 4), requires_grad=True)
        losses = NonParametricSoftmax(0.1)(features, torch.tensor([3, 7]), bank)
        if move:
            bank.update(torch.tensor([3, 7]), features)
        losses.mean().backward()
        gradients.append(numpy(features.grad))
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-6)


def test_a_stateless_update_leaves_the_caller_s_tensor_alone(rng):
    bank = MemoryBank(5, 4, seed=0)
    given = bank.rows.value.clone()
    kept = given.clone()
    with keras.StatelessScope([(bank.rows, given)]) as scope:
        bank.update([1], unit_rows(rng, 1, 4))
    assert torch.equal(given, kept)
    assert torch.equal(bank.rows.value, kept)
    assert not torch.equal(scope.get_current_value(bank.rows), kept)


@pytest.mark.usefixtures("on_a_cpu")
@pytest.mark.parametrize("dim", [1, 3, 128])
def test_flash_attention_products_and_the_reference_agree(monkeypatch, dim, rng):
    assert fused.attention is not None, "this release of PyTorch lost its CPU flash attention"
    rows, features = unit_rows(rng, 3000, dim), unit_rows(rng, 70, dim)
    arguments = torch.tensor(features), torch.tensor(rows), 0.07
    flash = TorchBankOps().attend(*arguments)
    monkeypatch.setattr(bank_ops, "attention", None)
    streamed = TorchBankOps().attend(*arguments)
    monkeypatch.setattr(products, "BLOCK_ELEMENTS", 70 * 1024)  # two blocks and a part
    table = arguments[1]
    parts = products.attend(arguments[0], lambda start, stop: table[start:stop], 3000, 0.07)
    assert len(parts[0]) == 3
    multiplied = bank_ops.merged(*parts)
    for expected, *actual in zip(
        reference.attend(features, rows, 0.07), flash, streamed, multiplied, strict=True
    ):
        for one in actual:
            np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-5)


def test_a_bank_is_in_the_state_dict_of_the_module_that_holds_it(rng):
    class Module(torch.nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.bank = MemoryBank(6, 4, seed=seed)

    module, other = Module(0), Module(1)
    assert any(name.endswith("rows") for name in module.state_dict())
    module.bank.update([1], unit_rows(rng, 1, 4))
    values = list(module.state_dict().values())
    other.load_state_dict(dict(zip(other.state_dict(), values, strict=True)))
    assert torch.equal(other.bank.rows.value, module.bank.rows.value)


class Encoder(torch.nn.Module):
    """A plain PyTorch encoder with batch statistics, from (batch, 6) to (batch, 8)."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.2)
        )

    def forward(self, x):
        return self.layers(x)


def test_an_nn_module_is_an_encoder(rng):
    images = rng.standard_normal((32, 6)).astype("float32")
    model = InstanceDiscrimination(Encoder(), 32, 4, NCE(8, 0.2, seed=0), seed=0)
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    losses = model.fit(images, np.arange(32), epochs=15, verbose=0, batch_size=16).history["loss"]
    assert losses[-1] < losses[0]
    embeddings = model.predict(images, verbose=0)
    np.testing.assert_allclose(embeddings, model.predict(images, verbose=0), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_a_plain_loop_trains_with_a_torch_optimizer(rng):
    torch.manual_seed(0)
    images = torch.tensor(rng.standard_normal((32, 6)), dtype=torch.float32)
    encoder, bank = torch.nn.Linear(6, 4), MemoryBank(32, 4, seed=0)
    objective = NonParametricSoftmax(0.2)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    losses = []
    for _ in range(30):
        features = torch.nn.functional.normalize(encoder(images))
        loss = objective(features, torch.arange(32), bank).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bank.update(torch.arange(32), features)
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@FORGETS
@pytest.mark.usefixtures("on_a_cpu")
def test_scores_hold_no_gathered_batch(rng, one_thread):
    """The peak of what is allocated stays far below B x K x d."""
    features, rows = torch.tensor(unit_rows(rng, 64, 32)), torch.tensor(unit_rows(rng, 2000, 32))
    indices = torch.tensor(rng.integers(0, 2000, (64, 1000)), dtype=torch.int32)
    weights = torch.ones(64, 1000)
    gathered = 64 * 1000 * 32 * 4
    operations = {
        "scores": lambda: TorchBankOps().scores(features, rows, indices),
        "combine": lambda: TorchBankOps().combine(weights, rows, indices),
        "attend": lambda: TorchBankOps().attend(features, rows, 0.1),
    }
    largest = {}
    for name, operation in operations.items():
        with torch.profiler.profile(profile_memory=True) as profile:
            operation()
        largest[name] = max(event.cpu_memory_usage for event in profile.events())
    assert largest["scores"] <= gathered / 1.9  # CHUNK_ELEMENTS of 2**20 floats
    assert largest["combine"] < gathered / 20
    assert largest["attend"] < 64 * 2000 * 4
    assert numpy(operations["combine"]()).shape == (64, 32)


@pytest.mark.usefixtures("on_a_cpu")
@pytest.mark.parametrize("threads", [3, 64])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_attention_in_parts_for_many_cores(monkeypatch, threads, dtype, rng):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    bank = MemoryBank(20_011, 16, dtype=dtype, seed=0)
    features = unit_rows(rng, 70, 16)
    parts = []

    def counted(queries, rows, temperature):
        parts.append(len(rows))
        return fused.attention(queries, rows, temperature)

    monkeypatch.setattr(bank_ops, "attention", counted)
    log_z, expected_row = bank.attend(torch.tensor(features), 0.07)
    assert max(parts) == min(-(-threads // 2), 20_011 // bank_ops.SMALLEST_PART)
    expected = reference.attend(features, numpy(bank.lookup(np.arange(20_011))), 0.07)
    np.testing.assert_allclose(log_z, expected[0], rtol=1e-5)
    np.testing.assert_allclose(expected_row, expected[1], atol=1e-5)


def test_a_kernel_that_does_something_else_is_not_used():
    one = torch.ones(2)
    assert fused._checked(torch.negative, (one,), (-one,)) is torch.negative
    assert fused._checked(torch.negative, (one,), (one,)) is None
    assert fused._checked(torch.negative, (one,), (-one[:1],)) is None
    assert fused._checked(torch.negative, (None,), (one,)) is None


def test_a_sampled_product_writes_nothing_beyond_its_memory():
    left, right = torch.ones(2, 3), torch.ones(2, 3)
    starts, columns = torch.tensor([0, 3, 6]), torch.zeros(6, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"Received: 6 elements\. Expected at most 2 x 2"):
        fused.sampled_product(left, right, starts, columns)


def test_autocast_changes_nothing(rng):
    bank = MemoryBank(3000, 32, seed=0)
    features = torch.tensor(unit_rows(rng, 8, 32))
    indices = torch.tensor(rng.integers(0, 3000, (8, 9)), dtype=torch.int32)

    def everything():
        scores = bank.scores(features, indices)
        shared = bank.scores(features, indices[0])
        sums = bank.combine(scores, indices), bank.combine(scores, indices[0])
        return scores, shared, *sums, *bank.attend(features, 0.1), *bank.search(features, 5)

    plain = everything()
    with torch.autocast(plain[0].device.type, torch.bfloat16):
        cast = everything()
    for one, other in zip(plain, cast, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize(("batch", "rows"), [(0, 30), (2, 0), (0, 0)])
def test_attention_of_nothing_or_to_nothing(batch, rows):
    log_z, expected_row = TorchBankOps().attend(torch.ones(batch, 4), torch.ones(rows, 4), 0.1)
    assert torch.equal(log_z, torch.full((batch,), -torch.inf))
    assert torch.equal(expected_row, torch.zeros(batch, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("dim", [1, 3, 16, 17, 100, 127, 128, 129, 512])
@pytest.mark.parametrize(("images", "rows"), [(1, 1), (256, 50_000), (33, 1025), (5000, 7)])
def test_the_parts_of_a_launch_cover_all_rows_once(dim, dtype, images, rows):
    attention, gather = tiles.of_attention(dim, dtype), tiles.of_gather(dim)
    for tile in (attention, gather):
        assert dim <= tile.dim < 2 * max(dim, tiles.SMALLEST_DIM)
        assert min(tile.images, tile.rows) >= 1
    for parts, size in (
        tiles.parts_of_attention(images, rows, attention),
        tiles.parts_of_sum(images, rows, gather),
    ):
        assert (parts - 1) * size < rows <= parts * size
        assert parts <= tiles.PROGRAMS


def test_rows_that_need_too_many_registers_have_no_attention_kernel():
    assert tiles.has_attention(128, torch.float32)
    assert not tiles.has_attention(129, torch.float32)
    assert tiles.has_attention(512, torch.int8)
    assert not tiles.has_attention(513, torch.bfloat16)
    assert tiles.has_gather(512)
    assert not tiles.has_gather(513)


def test_gpus_without_tf32_run_no_triton_kernel(monkeypatch):
    pytest.importorskip("triton", reason="PyTorch's CPU build comes without Triton")
    find = bank_ops._triton_kernels.__wrapped__
    for capability, runs in (((7, 5), False), ((8, 0), True), ((12, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert bool(find(torch.device("cuda", 0))) == runs
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert find(torch.device("cuda", 0)) is None


def test_after_a_training_gradients_are_those_of_the_rank_again():
    parameter = torch.nn.Parameter(torch.ones(2))
    join_gradients([parameter], 2)
    part_gradients([parameter])
    (3 * parameter).sum().backward()  # there is no process group to ask
    assert parameter.grad.tolist() == [3, 3]


def test_moments_move_when_a_normalization_can_fail_no_more(monkeypatch):
    """A recomputation of activations, for example, ends with an error behind its last kernel."""
    network = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    x = torch.arange(12.0).view(4, 3)
    kernel, before = torch.native_batch_norm, [numpy(v) for v in network.weights]

    def failing(*args):
        kernel(*args)
        raise RuntimeError("too late")

    monkeypatch.setattr(torch, "native_batch_norm", failing)
    with pytest.raises(RuntimeError, match="too late"):
        native_layers.call(network, x, training=True)
    for variable, value in zip(network.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)


def test_moments_may_change_before_the_gradient_is_computed():
    network = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(momentum=1.0)])
    mean, variance = network.non_trainable_variables
    variance.assign([0.3, 1.0, 7.0])
    for _ in range(300):  # with this momentum they stay what they are
        y = native_layers.call(network, torch.arange(3000.0).view(1000, 3), training=True)
    np.testing.assert_allclose(numpy(variance), [0.3, 1.0, 7.0], rtol=2e-6)
    mean.assign(mean + 1)
    y.sum().backward()
    assert network.trainable_variables[0].value.grad is not None
