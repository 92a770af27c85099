from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from auditkit.engines.spec import EngineSpec
from auditkit.errors import ConnectionLost, UsageError

pytest.importorskip("ray", reason='needs pip install "auditkit[ray]"')


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nowhere", "ray://x:y"])
def test_a_cluster_that_does_not_answer_is_named(address: str) -> None:
    with pytest.raises(ConnectionLost, match="no scheduler of ray answers") as caught:
        EngineSpec("ray", address).connect(1)
    assert caught.value.where == address


def test_a_cluster_that_may_ask_for_a_token_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from auditkit.engines import ray_engine  # needs ray

    def refused(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(
        ray_engine, "ray", SimpleNamespace(is_initialized=lambda: False, init=refused)
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConnectionLost, match="Failed to connect") as caught:
            EngineSpec("ray", address).connect(1)
    assert (caught.value.hint or "").endswith("asks for a token: is RAY_AUTH_MODE=token set here?")
    with pytest.raises(ConnectionLost) as caught:
        EngineSpec("ray", address).connect(1)
    assert (caught.value.hint or "").endswith("reached from here under this address?")


def test_a_scheduler_that_is_gone_ends_the_study_before_ray_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from auditkit.engines import ray_engine  # needs ray

    def unreachable() -> None:
        raise AssertionError("nobody is there to say farewell to")

    context = SimpleNamespace(gcs_address="127.0.0.1:9")
    fake = SimpleNamespace(
        remote=lambda function: function,
        get_runtime_context=lambda: context,
        shutdown=unreachable,
    )
    monkeypatch.setattr(ray_engine, "ray", fake)
    monkeypatch.setattr(ray_engine, "_LOOKS", 0.001)
    abandoned: list[str] = []
    monkeypatch.setattr(ray_engine, "ABANDONED", abandoned)
    engine = ray_engine.RayEngine(None, is_ours=True)
    ticket = ray_engine.RayTicket(engine, None)
    time.sleep(0.002)
    engine.require_running()  # a moment without an answer is none
    monkeypatch.setattr(ray_engine, "_GONE", 0.0)
    time.sleep(0.002)
    with pytest.raises(ConnectionLost, match="the scheduler of ray is gone"):
        ticket.answer()
    ticket.cancel()
    engine.close()
    assert abandoned == ["ray"]


def test_a_node_that_does_not_come_up_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from auditkit.engines import ray_engine  # needs ray

    def failing(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    fake = SimpleNamespace(is_initialized=lambda: False, init=failing)
    monkeypatch.setattr(ray_engine, "ray", fake)
    with pytest.raises(ConnectionLost, match=r"ray could not be started here .*timed out"):
        EngineSpec("ray", None).connect(1)


@pytest.mark.parametrize("is_first", [True, False])
def test_sigterm_ends_a_command_as_it_did_before_ray_was_started(
    monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    from auditkit.engines import ray_engine  # needs ray

    came: list[int] = []
    monkeypatch.setattr(ray_engine, "RayEngine", lambda *_, **__: None)
    monkeypatch.setattr(ray_engine, "_start_worker", lambda _: None)
    c_signal = ctypes.CDLL(None).signal
    c_signal.argtypes = (ctypes.c_int, ctypes.c_void_p)

    def init(**_: object) -> None:
        """As ray does: in Python, where that can be, and below it. Here it is ignored then."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        c_signal(signal.SIGTERM, 1)

    fake = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setattr(ray_engine, "ray", fake)
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        if is_first:
            EngineSpec("ray", None).connect(1)
        else:
            thread = threading.Thread(target=EngineSpec("ray", None).connect, args=(1,))
            thread.start()
            thread.join()
        os.kill(os.getpid(), signal.SIGTERM)
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_no_ray_is_started_for_a_job_that_is_asked_for_when_all_is_over() -> None:
    code = (
        "from auditkit.engines.spec import EngineSpec; EngineSpec('ray', None).require_installed();"
        "from ray._private import auto_init_hook as hook; print(hook.enable_auto_connect)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_a_job_that_no_node_has_the_cores_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from auditkit.engines import ray_engine  # needs ray

    asked: list[object] = []

    class Function:
        def options(self, **settings: object) -> SimpleNamespace:
            asked.append(settings["num_cpus"])
            return SimpleNamespace(remote=lambda order: order)

    fake = SimpleNamespace(
        remote=lambda function: Function(),
        get_runtime_context=lambda: SimpleNamespace(gcs_address="127.0.0.1:9"),
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False}],
    )
    monkeypatch.setattr(ray_engine, "ray", fake)
    there = ray_engine.RayEngine("head:6379", is_ours=True)
    there.submit("{}", "auditkit-test", 2)
    with pytest.raises(UsageError, match="uses 3 cores, and no node of ray has more than 2;"):
        there.submit("{}", "auditkit-test", 3)
    ray_engine.RayEngine(None, is_ours=True).submit("{}", "auditkit-test", 3)
    assert asked == [2, 1]


def test_jobs_of_one_machine_share_a_process_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    from auditkit.engines import ray_engine  # needs ray

    monkeypatch.setenv("RAY_enable_autoscaler_v2", "")  # so that what is set is taken back
    monkeypatch.delenv("RAY_enable_autoscaler_v2")
    started: list[dict[str, object]] = []
    sent: list[tuple[object, str]] = []
    forced: list[object] = []

    def remote(thing: object = None, **settings: object) -> object:
        if thing is None:
            started.append(settings)
            return lambda cls: SimpleNamespace(remote=lambda: SimpleNamespace(do=Method()))
        return thing

    class Method:
        def options(self, **settings: object) -> SimpleNamespace:
            return SimpleNamespace(remote=lambda order: sent.append((settings["name"], order)))

    fake = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **settings: started.append({**os.environ, **settings}),
        remote=remote,
        get_runtime_context=lambda: SimpleNamespace(gcs_address="127.0.0.1:9"),
        cancel=lambda _, force: forced.append(force),
    )
    monkeypatch.setattr(ray_engine, "ray", fake)
    ticket = EngineSpec("ray", None).connect(3).submit("{}", "auditkit-test", 8)
    assert (started[0]["num_cpus"], started[1]["max_concurrency"]) == (1, 3)
    assert started[0]["RAY_enable_autoscaler_v2"] == "1"  # it ends at once, the other does not
    assert sent == [("auditkit-test", "{}")]
    ticket.cancel()
    assert forced == [False]
