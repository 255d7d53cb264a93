"""dask.distributed: nannies start workers, and hear from them through queues; one worker is killed and comes back."""

import logging
import os
import signal
import time

from distributed import Client, LocalCluster


def square(number):
    return number * number


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,
    ):
        print(client.gather(client.map(square, range(20))))
        pids = client.run(os.getpid)
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            alive = set(client.run(os.getpid, on_error="ignore").values())
            if len(alive) == 2 and alive != set(pids.values()):
                break
            time.sleep(0.2)
        print(len(alive), client.gather(client.map(square, range(20, 30))))
