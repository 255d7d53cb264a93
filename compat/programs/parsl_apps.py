"""parsl: apps in worker processes on this machine."""

import logging
import os
import sys
import tempfile

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider


@parsl.python_app
def square(number):
    return number * number


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        executor = HighThroughputExecutor(
            address="127.0.0.1", max_workers_per_node=2, cores_per_worker=1, provider=LocalProvider(init_blocks=1)
        )
        with parsl.load(Config(executors=[executor], run_dir=folder, strategy="none")):
            print([one.result() for one in [square(number) for number in range(20)]])
        os.chdir("/")
