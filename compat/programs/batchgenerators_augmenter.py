"""batchgenerators: batches that several processes make, each with a queue of its own, in their order."""

import multiprocessing

import numpy
from batchgenerators.dataloading.data_loader import DataLoader
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.transforms.abstract_transforms import AbstractTransform


class Numbers(DataLoader):
    def __init__(self, processes):
        super().__init__(list(range(24)), 4, processes, seed_for_shuffle=1, shuffle=False, infinite=False)
        self.indices = list(range(24))

    def generate_train_batch(self):
        return {"data": numpy.array(self.get_indices(), dtype=numpy.float32).reshape(-1, 1) * numpy.ones((1, 5000))}


class Double(AbstractTransform):
    def __call__(self, **batch):
        return {"data": batch["data"] * 2}


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    augmenter = MultiThreadedAugmenter(Numbers(2), Double(), 2, 2, [1, 2])
    print([batch["data"][:, 0].tolist() for batch in augmenter])
    augmenter._finish()
    del augmenter
