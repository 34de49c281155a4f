"""What a network's run takes beside cameras that are decoded, in software or by NVDEC.

Every decoder takes 25 frames a second and throws them away, so that nothing but decoding and the network is measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import av
from av.codec.hwaccel import HWAccel

from tests.gpu.report import Options, Report, Value
from tests.gpu.sections.networks import entries, noise, timed
from visaged.models.manifest import Manifest
from visaged.models.session import Session, SessionConfig

_FPS = 25
_BATCH = 4
_SHAPE = (384, 640)
_OPEN_S = 30.0


def beside(report: Report, options: Options) -> None:
    """Time runs of the detector that cameras use beside none, and beside 32 and 64 decoders of each kind."""
    entry = entries()[0]
    feed = noise(entry, _BATCH, _SHAPE)
    session = Session(Manifest().file(entry), SessionConfig(options.provider))
    session.run(session.outputs, feed)
    kinds: dict[str, Callable[[], HWAccel | None]] = {"software": lambda: None}
    if options.provider == "cuda":
        kinds["NVDEC"] = _hardware
    report.attempt("no decoders", lambda: _run(session, feed, options))
    for kind, hardware in kinds.items():
        for count in (2,) if options.quick else (32, 64):
            report.attempt(
                f"{count} decoders, {kind}", lambda c=count, h=hardware: _with_decoders(session, feed, options, c, h)
            )


def _hardware() -> HWAccel:
    return HWAccel("cuda", allow_software_fallback=False, options={"primary_ctx": "1"}, is_hw_owned=True)


def _run(session: Session, feed: dict[str, Any], options: Options) -> dict[str, Value]:
    median, cpu = timed(lambda: session.run(session.outputs, feed), options.seconds(1.5))
    return {f"ms of a batch of {_BATCH}": 1000 * median, "cpu ms of all": 1000 * cpu}


def _with_decoders(
    session: Session, feed: dict[str, Any], options: Options, count: int, hardware: Callable[[], HWAccel | None]
) -> dict[str, Value]:
    stopping, frames, errors = threading.Event(), [0] * count, list[str]()
    ready = threading.Barrier(count + 1, timeout=_OPEN_S)

    def decode(index: int) -> None:
        try:
            with av.open(str(options.clip), hwaccel=hardware()) as container:
                stream = container.streams.video[0]
                stream.thread_type, stream.thread_count = "NONE", 1
                next(container.decode(stream))
                ready.wait()
                due = time.perf_counter() + index / count / _FPS
                while not stopping.is_set():
                    container.seek(0)
                    for _ in container.decode(stream):
                        frames[index] += 1
                        due += 1 / _FPS
                        if stopping.wait(max(0.0, due - time.perf_counter())):
                            break
        except Exception as error:  # shown in the table
            errors.append(f"{type(error).__name__}: {error}")
            ready.abort()

    threads = [threading.Thread(target=decode, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    try:
        ready.wait()
        before, began = sum(frames), time.perf_counter()
        values = _run(session, feed, options)
        rate = (sum(frames) - before) / (time.perf_counter() - began)
    except threading.BrokenBarrierError:
        return {"error": errors[0] if errors else "not opened in time"}
    finally:
        stopping.set()
        for thread in threads:
            thread.join(10)
    return values | {"decoded fps each": rate / count}
