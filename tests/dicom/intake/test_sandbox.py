"""Workers that crash, hang or run out of memory: the file is rejected, and the parent continues with the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydicom.uid import RLELossless

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.read import DecodedInstance
from pipeline.dicom.intake import sandbox
from pipeline.dicom.intake.sandbox import DecodeWorkers
from pipeline.dicom.intake.worker_process import PROGRAM, SLOTS, WorkerProcess
from pipeline.errors import Rejected, RejectionCode

CT = "pydicom/CT_small.dcm"


def _children() -> set[int]:
    return {
        child.pid
        for child in psutil.Process().children()
        if "pipeline.dicom.intake.decode_worker" in " ".join(child.cmdline())
    }


def _same(one: DecodedInstance, other: DecodedInstance) -> bool:
    parts = [(x.identity, x.attributes, json.dumps([s.to_json() for s in x.history])) for x in (one, other)]
    return parts[0] == parts[1] and one.stored.dtype == other.stored.dtype and np.array_equal(one.stored, other.stored)


NAMES = [
    CT, "pydicom/MR_truncated.dcm", "pydicom/emri_small.dcm", "pydicom/examples_palette.dcm", "pydicom/README.txt",
    "pydicom/SC_rgb_rle_32bit_2frame.dcm", "pydicom/MR_small_bigendian.dcm", "pydicom/examples_ybr_color.dcm",
]  # fmt: skip


def test_workers_give_the_same_result_as_reading_here(
    workers: DecodeWorkers, real_files: dict[str, Path], read_real: Callable
) -> None:
    names = [name for name in NAMES if name in real_files]
    results = list(workers.read_many([real_files[name] for name in names]))
    assert [path for path, _ in results] == [real_files[name] for name in names]
    for name, (_, result) in zip(names, results, strict=True):
        here = read_real(name)
        if isinstance(here, Rejected):
            assert isinstance(result, Rejected)
            assert (result.code, result.sentence) == (here.code, here.sentence)
        else:
            assert _same(result, here)


def test_look_ahead_is_bounded(workers: DecodeWorkers, real_files: dict[str, Path]) -> None:
    """While the consumer holds the first result, at most a few more paths are taken from the source."""
    taken = []

    def source() -> Iterator[Path]:
        for index in range(100):
            taken.append(index)
            yield real_files[CT]

    results = workers.read_many(source())
    next(results)
    assert len(taken) <= 2 * sandbox.LOOK_AHEAD + 1
    results.close()
    assert workers.read(real_files[CT]).stored.shape == (1, 128, 128)


def _read_while(pool: DecodeWorkers, path: Path, *signals: int) -> Rejected:
    """Stop the only worker, request `path` from it, send it `signals`, and return the outcome."""
    worker = pool._all[0]._process.pid
    os.kill(worker, signal.SIGSTOP)
    timer = threading.Timer(0.3, lambda: [os.kill(worker, number) for number in signals])
    timer.start()
    with pytest.raises(Rejected) as caught:
        pool.read(path)
    timer.join()
    assert not psutil.pid_exists(worker)
    return caught.value


def test_a_crash_is_one_rejected_file(real_files: dict[str, Path], limits: DecodeLimits) -> None:
    """A fault in a C decoder, and a kill by the system for lack of memory, while a file is read."""
    with DecodeWorkers(1, limits) as pool:
        assert pool.read(real_files[CT]).stored.size
        crash = _read_while(pool, real_files[CT], signal.SIGSEGV, signal.SIGCONT)
        assert crash.code == RejectionCode.DECODER_CRASHED
        assert "SIGSEGV" in crash.sentence
        assert pool.read(real_files[CT]).stored.size
        assert _read_while(pool, real_files[CT], signal.SIGKILL).code == RejectionCode.DECODE_MEMORY
        assert pool.read(real_files[CT]).stored.size


def test_a_file_that_aborts_gdcm(workers: DecodeWorkers, real_files: dict[str, Path], tmp_path: Path) -> None:
    """Found by the fuzz test: two bytes less in a quantisation table, and GDCM 3.2.6 ends its process with SIGABRT.

    The decoder may refuse it instead; the parent must continue in any case.
    """
    data = real_files["pydicom/SC_rgb_small_odd_jpeg.dcm"].read_bytes()
    (tmp_path / "broken").write_bytes(data[:1770] + data[1772:])
    with pytest.raises(Rejected) as caught:
        workers.read(tmp_path / "broken")
    assert caught.value.code in (RejectionCode.DECODER_CRASHED, RejectionCode.DECODE_FAILED)
    assert workers.read(real_files[CT]).stored.size


def test_files_given_before_a_crash_are_decoded_by_the_next_process(
    real_files: dict[str, Path], limits: DecodeLimits
) -> None:
    """The worker has two files when it dies of the first: the second is not blamed, and the order stays."""
    with DecodeWorkers(1, limits) as pool:
        worker = pool._all[0]
        worker.give(real_files[CT])
        assert isinstance(worker.take(), DecodedInstance)
        process = worker._process
        os.kill(process.pid, signal.SIGSTOP)
        for name in (CT, "pydicom/README.txt"):
            worker.give(real_files[name])
        assert not worker.has_room
        os.kill(process.pid, signal.SIGSEGV)
        os.kill(process.pid, signal.SIGCONT)
        outcomes = [worker.take(), worker.take()]
        assert [outcome.code for outcome in outcomes] == [RejectionCode.DECODER_CRASHED, RejectionCode.NOT_DICOM]
        assert worker._process is not process and pool.read(real_files[CT]).stored.size


def test_each_slot_holds_its_own_pixels(limits: DecodeLimits, make_dataset: Callable, write_dataset: Callable) -> None:
    """Files of several sizes through one worker, which is always one ahead: none gets the pixels of another."""
    arrays = [np.full((8 + number, 8), number, np.uint16) for number in range(7)]
    paths = [write_dataset(make_dataset(array), f"{number}.dcm") for number, array in enumerate(arrays)]
    with DecodeWorkers(1, limits) as pool:
        results = [result for _, result in pool.read_many(paths)]
    for result, array in zip(results, arrays, strict=True):
        assert isinstance(result, DecodedInstance)
        np.testing.assert_array_equal(result.stored[0], array)


def test_a_death_between_files_is_nobodys_fault(real_files: dict[str, Path], limits: DecodeLimits) -> None:
    with DecodeWorkers(1, limits) as pool:
        assert pool.read(real_files[CT]).stored.size
        pool._all[0]._process.kill()
        pool._all[0]._process.wait()
        assert pool.read(real_files[CT]).stored.size


def test_a_hang_ends_at_the_time_limit(real_files: dict[str, Path], limits: DecodeLimits) -> None:
    """The worker is stopped, as if in an endless loop; it is killed and replaced within the limit."""
    with DecodeWorkers(1, limits.model_copy(update={"seconds": 2.0})) as pool:
        assert pool.read(real_files[CT]).stored.size
        started = time.monotonic()
        assert _read_while(pool, real_files[CT]).code == RejectionCode.DECODE_TIMEOUT
        assert 2.0 <= time.monotonic() - started < 60
        assert pool.read(real_files[CT]).stored.size


def test_memory_is_capped(
    limits: DecodeLimits, make_dataset: Callable, write_dataset: Callable, real_files: dict[str, Path]
) -> None:
    """12 000 x 12 000 in 2 MB of RLE need 144 MB; with 96 MB above its start the worker refuses, with 1 GB it reads."""
    frame = np.zeros((12_000, 12_000), dtype=np.uint8)
    ds = make_dataset(frame)
    ds.compress(RLELossless, frame, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    path = write_dataset(ds, syntax=RLELossless)
    assert path.stat().st_size < 4_000_000
    with DecodeWorkers(1, limits.model_copy(update={"memory_bytes": 96 * 2**20})) as pool:
        with pytest.raises(Rejected) as caught:
            pool.read(path)
        assert caught.value.code == RejectionCode.DECODE_MEMORY
        assert pool.read(real_files[CT]).stored.size
    with DecodeWorkers(1, limits) as pool:
        assert pool.read(path).stored.shape == (1, 12_000, 12_000)
        assert [os.fstat(slot).st_size for slot in pool._all[0]._slots] == [0] * SLOTS


def test_no_process_and_no_descriptor_is_left(real_files: dict[str, Path], limits: DecodeLimits) -> None:
    before = (_children(), psutil.Process().num_fds())
    for _ in range(2):
        with DecodeWorkers(2, limits) as pool:
            assert sum(1 for _ in pool.read_many([real_files[CT]] * 5)) == 5
    assert (_children(), psutil.Process().num_fds()) == before


def test_processes_start_with_the_first_files(real_files: dict[str, Path], limits: DecodeLimits) -> None:
    before = _children()
    with DecodeWorkers(2, limits) as pool:
        assert _children() == before
        for _ in range(2):  # one file after the other: the same process
            pool.read(real_files[CT])
            assert len(_children()) == len(before) + 1


def test_a_worker_ends_with_its_parent(real_files: dict[str, Path]) -> None:
    """The parent is killed without a chance to clean up; its worker sees the end of its input and exits."""
    code = (
        "import sys, time; from pathlib import Path; from pipeline.config import DecodeLimits\n"
        "from pipeline.dicom.intake.sandbox import DecodeWorkers\n"
        "pool = DecodeWorkers(1, DecodeLimits()).__enter__()\n"
        "pool.read(Path(sys.argv[1])); print(pool._all[0]._process.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(real_files[CT])]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    worker.wait(timeout=240)


def test_threads_share_a_pool(workers: DecodeWorkers, real_files: dict[str, Path]) -> None:
    shapes: list[tuple[int, ...]] = []
    threads = [
        threading.Thread(target=lambda: shapes.append(workers.read(real_files[CT]).stored.shape)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shapes == [(1, 128, 128)] * 6


def test_a_worker_loads_only_what_decodes() -> None:
    code = f"{PROGRAM.partition('; main()')[0]}; print([n for n in sys.argv[1:] if sys.modules.get(n) is not None])"
    names = ["numpy", "pydicom", "torch", "pydantic", "requests"]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['numpy', 'pydicom']"


def test_two_threads_that_stop_a_worker_close_each_descriptor_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second close would hit a file that got the same number meanwhile, such as the catalogue's."""
    worker, closed, both = WorkerProcess(DecodeLimits()), list[int](), threading.Barrier(2)
    worker._await_ready()
    process, own = worker._process, {worker._replies, *worker._slots}
    assert process is not None
    wait = process.wait
    monkeypatch.setattr(process, "wait", lambda: (time.sleep(0.2), wait())[1])  # as long as the other needs
    monkeypatch.setattr("pipeline.dicom.intake.worker_process.os.close", closed.append)
    with ThreadPoolExecutor(2) as threads:
        for ended in [threads.submit(lambda: (both.wait(), worker.stop())) for _ in range(2)]:
            ended.result()
    monkeypatch.undo()
    for descriptor in own:
        os.close(descriptor)
    assert sorted(one for one in closed if one in own) == sorted(own)
