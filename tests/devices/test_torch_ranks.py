"""Several ranks of torch.distributed end as one device does."""

import keras
import numpy as np
import pytest
from devices.start import start
from devices.trainings import CASES, trained

if keras.backend.backend() != "torch":
    pytest.skip("ranks of torch.distributed", allow_module_level=True)


@pytest.fixture(scope="module", params=[2, 3])
def outcomes(request, tmp_path_factory):
    """The folder of what each rank found in each case, and how many ranks there were."""
    folder = tmp_path_factory.mktemp(f"ranks-{request.param}")
    start(request.param, "torch_ranks.py", folder)
    return folder, request.param


@pytest.fixture(scope="module")
def expected():
    """What one device finds; a case is trained once."""
    found = {}

    def of(name):
        if name not in found:
            found[name] = trained(CASES[name])
        return found[name]

    return of


@pytest.mark.parametrize("name", CASES)
def test_ranks_equal_one_device(name, outcomes, expected):
    folder, ranks = outcomes
    for rank in range(ranks):
        found = np.load(folder / f"{name}-{rank}.npz")
        for what, values in expected(name).items():
            np.testing.assert_allclose(
                found[what], values, 0, CASES[name].tolerance, err_msg=f"{what} of rank {rank}"
            )
