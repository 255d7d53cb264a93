"""locust as a library: users put what they measure, a process that was forked while they run takes it."""

# ruff: noqa: I001
from locust import User, constant, task  # patches everything, by gevent
from locust.env import Environment

import multiprocessing

import gevent

USERS, TASKS = 5, 40


class Measuring(User):
    wait_time = constant(0.005)
    done = 0

    @task
    def measure(self):
        if self.done < TASKS:
            self.done += 1
            self.environment.measured.put((id(self), self.done))


def consume(measured, counted):
    users = {}
    for user, number in iter(measured.get, None):
        users.setdefault(user, []).append(number)
    counted.put(sorted(map(len, users.values())))
    counted.put(all(numbers == sorted(numbers) for numbers in users.values()))


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    environment = Environment(user_classes=[Measuring])
    environment.measured, counted = context.Queue(), context.Queue()
    runner = environment.create_local_runner()
    runner.start(USERS, spawn_rate=100)
    gevent.sleep(0.1)
    consumer = context.Process(target=consume, args=(environment.measured, counted))
    consumer.start()
    gevent.sleep(1)
    runner.stop()
    environment.measured.put(None)
    consumer.join()
    print(consumer.exitcode, counted.get(), counted.get())
    runner.quit()
