"""The orders of a load's process, and the load between them.

    > {"do": "compute"}, {"do": "wait"}, {"do": "rest"}     from now on; answered when it has begun
    > {"do": "markers"}                                     what `Markers.cost` tells
    > {"do": "write", "count": 200}                         what `Markers.write` tells

The first line out is {"name": ...} or {"refused": why}; an order that fails is answered by {"failed": why}. It ends
with its input.
"""

from __future__ import annotations

import json
import mmap
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from joulepath_load.markers import PAGE_BYTES, Markers
from joulepath_load.work import NoWorkError, Work

__all__ = ["serve"]

_LOADS: Final = ("compute", "wait", "rest")


def serve(make: Callable[[], Work], page_descriptor: int) -> None:
    """Does what it is told until its input ends.

    Args:
        make: Makes the work.
        page_descriptor: Of a page of `markers.PAGE_BYTES` that the other side maps as well.
    """
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    try:
        work = make()
    except NoWorkError as error:
        _say({"refused": str(error)})
        return
    except Exception as error:
        _say({"refused": f"{type(error).__name__}: {error}"})
        return
    _say({"name": work.name})
    page, markers, load = mmap.mmap(page_descriptor, PAGE_BYTES), None, "rest"
    while True:
        order = orders.get() if load == "rest" or not orders.empty() else {}
        try:
            if order.get("do") in _LOADS:
                load = str(order["do"])
                _go_on(work, load)
                _say({"doing": load})
            elif order:
                work.finish()
                markers = markers or Markers(work, page)
                _say(markers.cost() if order["do"] == "markers" else markers.write(int(order["count"])))
            else:
                _go_on(work, load)
        except Exception as error:
            load = "rest"
            _say({"failed": f"{type(error).__name__}: {error}"})


def _go_on(work: Work, load: str) -> None:
    {"compute": work.compute, "wait": work.wait, "rest": work.finish}[load]()


def _listen(orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    # Whoever asked is gone: at once, whatever the GPU still has to do.
    os._exit(0)


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)
