"""Two workers of ``MultiWorkerMirroredStrategy``, and one device: what each training ends with.

The workers are forked after the imports, which take longer than what they do.
"""

import json
import os
import signal
import socket
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_GRPC_REUSE_PORT": "1"}

import numpy as np
import tensorflow as tf
from devices.tensorflow_loops import Loop
from devices.trainings import Case, batches

from instdisc_core.devices import require_equal, require_same_values

CASES = {
    "exact": Case(epochs=10),  # 50 steps
    "continued": Case("nce", duplicates=True, epochs=2),
}
SAVED, KILLED = 6, 8  # steps of the training that is continued


def data(case):
    """The batches of a training, of all workers: the loop divides them."""
    own = batches(case, part=(0, 1))
    for own.epoch in range(case.epochs):
        for x, y, *_ in own:
            yield x, y


def trained(name, strategy):
    """What a training ends with."""
    loop = Loop(CASES[name].objective, strategy)
    loop.train(data(CASES[name]))
    require_same_values(loop.ranks, [*loop.encoder.variables, *loop.bank.variables])
    return loop.outcome()


def until_killed(folder, strategy, process):
    """A training of which the first worker writes a checkpoint, and the other one dies."""
    case = CASES["continued"]
    loop = Loop(case.objective, strategy)
    for number, batch in enumerate(data(case), start=1):
        loop.train([batch])
        if number == SAVED and process == 0:
            loop.checkpoint.write(folder / "run")
        if number == KILLED and process == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def continued(folder, strategy):
    """What the training ends with, from the checkpoint on."""
    case = CASES["continued"]
    loop = Loop(case.objective, strategy)
    loop.checkpoint.read(folder / "run").assert_consumed()
    loop.train(list(data(case))[SAVED:])
    return loop.outcome()


def mistakes(strategy, process):
    """What is said of workers that differ."""
    loop = Loop("exact", strategy)
    found = {}
    try:
        require_equal(loop.ranks, {"seed": process, "name": "é" * (5 * process)})
    except ValueError as error:
        found["seed"] = str(error)
    own = np.array([process])
    loop.bank.update(own, np.eye(loop.bank.embedding_dim, dtype="float32")[own])
    try:
        require_same_values(loop.ranks, loop.bank.variables)
    except ValueError as error:
        found["own update"] = str(error)
    return found


def of_a_worker(folder, process, attempt):
    """All that a worker does: until it is killed, or what is left when it is started again."""
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.RING
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    if attempt:
        found = {"continued": continued(folder, strategy)}
        (folder / f"mistakes-{process}.json").write_text(json.dumps(mistakes(strategy, process)))
    else:
        found = {"exact": trained("exact", strategy)}
    for name, arrays in found.items():
        np.savez(folder / f"{name}-{process}.npz", **arrays)
    if not attempt:
        until_killed(folder, strategy, process)


def of_one_device(folder):
    """The same trainings, and the end of the one that two workers began."""
    strategy = tf.distribute.get_strategy()
    found = {name: trained(name, strategy) for name in CASES}
    found["continued"]["losses"] = found["continued"]["losses"][SAVED:]
    found["loaded"] = continued(folder, strategy)
    for name, arrays in found.items():
        np.savez(folder / f"{name}.npz", **arrays)


def in_a_process(function, *arguments):
    """Call a function in a process of its own, whose number is returned."""
    child = os.fork()
    if not child:
        status = 1
        try:
            function(*arguments)
            status = 0
        except BaseException:
            print(traceback.format_exc(), flush=True)
        os._exit(status)
    return child


def status(child):
    """What a process ended with: an exit code, or a signal as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def workers(folder, ports, attempt):
    """How two workers ended that were started together."""
    children = []
    for process in range(2):
        task = {"type": "worker", "index": process}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": ports}, "task": task})
        children.append(in_a_process(of_a_worker, folder, process, attempt))
    del os.environ["TF_CONFIG"]
    return [status(child) for child in children]


def main(folder):
    with ExitStack() as stack:
        # Bound until the end, so that nobody else is given these ports, but not listened to: the
        # servers of the workers may do that, because of SO_REUSEPORT and TF_GRPC_REUSE_PORT.
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind(("127.0.0.1", 0))
        ports = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
        ends = workers(folder, ports, 0), workers(folder, ports, 1)
    assert ends == ([1, -signal.SIGKILL], [0, 0]), ends
    assert status(in_a_process(of_one_device, folder)) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
