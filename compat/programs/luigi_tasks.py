"""luigi with several workers: each task runs in a process of its own and says through a queue what became of it."""

import logging
import multiprocessing
import os
import tempfile

import luigi


class Number(luigi.Task):
    folder = luigi.Parameter()
    number = luigi.IntParameter()

    def output(self):
        return luigi.LocalTarget(os.path.join(self.folder, f"{self.number}.txt"))

    def requires(self):
        return [Number(self.folder, self.number // 2)] if self.number > 1 else []

    def run(self):
        if self.number == 6:
            raise ValueError("six")
        with self.output().open("w") as file:
            file.write(str(self.number * self.number))


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as place:
        tasks = [Number(place, number) for number in range(1, 16)]
        done = luigi.build(tasks, workers=3, local_scheduler=True, detailed_summary=True, log_level="CRITICAL")
        print(done.status.name, sorted(os.listdir(place)))
