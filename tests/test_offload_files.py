"""The files behind offloading: gone in time, and missed in words."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.test_offload import BIG, ROOT, files
from utils.techniques.offload import DiskStore, HostStore, offloading

ELSEWHERE = nn.Linear(1, 1)


@pytest.fixture
def store(tmp_path):
    store = DiskStore(tmp_path)
    yield store
    store.close()


def forward(store, x=None):
    """A graph with two big blocks in the store."""
    x = torch.ones(BIG).requires_grad_() if x is None else x
    with offloading(store, ELSEWHERE):
        return x.sin().exp().cos().sum()


def test_files_go_with_the_graph_and_the_folder_with_the_store(tmp_path):
    store = DiskStore(tmp_path)
    y = forward(store)
    assert len(files(tmp_path)) == 2
    y.backward()
    assert len(files(tmp_path)) <= 2
    del y
    assert files(tmp_path) == []
    kept = forward(store)
    del store
    assert len(files(tmp_path)) == 2  # the graph still wants them
    del kept
    assert list(tmp_path.iterdir()) == []


def test_a_file_goes_although_its_tensor_lives_on(store, tmp_path):
    buffer, x = torch.ones(BIG), torch.ones(BIG).requires_grad_()
    for _ in range(3):
        with offloading(store, ELSEWHERE):
            y = (x * buffer).sum()
        assert len(files(tmp_path)) == 1
        y.backward()
        del y
        assert files(tmp_path) == []
    assert store.bytes_out == 3 * buffer.nbytes


def test_close_removes_all_at_once_and_may_come_twice(tmp_path):
    store = DiskStore(tmp_path)
    y = forward(store)
    store.close()
    store.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match=r"cannot come back from .*offload-.*Leave the store open"):
        y.backward()
    with pytest.raises(OSError, match=rf"bytes cannot go to {tmp_path}.*another folder"):
        forward(store)


def test_nothing_is_left_when_the_interpreter_ends(tmp_path):
    program = (
        "import sys, torch\n"
        "from torch import nn\n"
        "from pathlib import Path\n"
        "from utils.techniques.offload import DiskStore, offloading\n"
        "store = DiskStore(Path(sys.argv[1]))\n"
        "with offloading(store, nn.Linear(1, 1)):\n"
        "    y = torch.ones(5000).requires_grad_().exp().sum()\n"
        "assert len(list(Path(sys.argv[1]).rglob('1'))) == 1\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named_and_loses_nothing(store, tmp_path):
    earlier = forward(store, x := torch.ones(BIG).requires_grad_())
    (store._folder / "4").symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"20,000 bytes cannot go to {tmp_path}.*No space left"):
        forward(store)
    assert len(files(tmp_path)) == 2  # what the broken forward had moved is gone
    assert store.bytes_out == 3 * x.nbytes
    earlier.backward()
    gradient, x.grad = x.grad, None
    forward(store, x).backward()  # there is room again
    assert torch.equal(x.grad, gradient)


def test_a_folder_that_is_gone_is_named_and_backward_goes_on_when_it_is_back(store, tmp_path):
    x = torch.ones(BIG).requires_grad_()
    y = forward(store, x)
    store._folder.rename(tmp_path / "away")
    with pytest.raises(OSError, match=rf"cannot come back from {tmp_path}.*No such file"):
        y.backward(retain_graph=True)
    assert x.grad is None
    (tmp_path / "away").rename(store._folder)
    y.backward()
    assert x.grad.count_nonzero() == BIG


def test_a_file_cut_short_is_noticed(store, tmp_path):
    y = forward(store)
    for path in files(tmp_path):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(OSError, match="only 100 bytes are left"):
        y.backward()
    assert store.bytes_back == 0


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        DiskStore(tmp_path / "nowhere")


def test_several_threads_share_a_store(store):
    results = {}

    def work(number):
        x = torch.full((BIG,), float(number)).requires_grad_()
        for _ in range(20):
            x.grad = None
            forward(store, x).backward()
        results[number] = x.grad

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, gradient in results.items():
        x = torch.full((BIG,), float(number)).requires_grad_()
        x.sin().exp().cos().sum().backward()
        assert torch.equal(gradient, x.grad)
    assert len(results) == 4


def test_the_host_store_copies():
    store, block = HostStore(), torch.arange(10, dtype=torch.uint8)
    ticket = store.put(block)
    block.zero_()
    for _ in range(2):
        back = store.get(ticket)
        assert back.tolist() == list(range(10))
        back.zero_()
    assert (store.bytes_out, store.bytes_back) == (10, 20)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("make", [HostStore, DiskStore])
def test_blocks_of_a_gpu_come_back_to_it(make):
    store, x = make(), torch.linspace(0, 1, BIG, device="cuda").requires_grad_()
    with offloading(store, ELSEWHERE):
        y = x.sin().exp().sum()
    y.backward()
    assert torch.allclose(x.grad, x.detach().cos() * x.detach().sin().exp())
    assert store.bytes_out == store.bytes_back > 0
