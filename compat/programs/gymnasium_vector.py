"""gymnasium's AsyncVectorEnv: an environment a process; what fails in one comes through a queue."""

import sys
import warnings

import gymnasium
import numpy
from gymnasium.vector import AsyncVectorEnv

warnings.simplefilter("ignore")


class Counting(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1000, (2,), dtype=numpy.float32)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        self.total = seed or 0
        return numpy.array([self.total, 0], dtype=numpy.float32), {}

    def step(self, action):
        if action == 3:
            raise ValueError("three")
        self.total += int(action)
        return numpy.array([self.total, action], dtype=numpy.float32), float(action), False, False, {}


if __name__ == "__main__":
    envs = AsyncVectorEnv([Counting] * 3, context=sys.argv[1])
    print(envs.reset(seed=5)[0].tolist())
    for actions in ([0, 1, 2], [2, 2, 2]):
        found = envs.step(numpy.array(actions))
        print(found[0].tolist(), found[1].tolist())
    try:
        envs.step(numpy.array([0, 3, 0]))
    except ValueError as error:
        print("failed:", error)
    envs.close(terminate=True)
