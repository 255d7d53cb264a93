"""deap: an evolution whose individuals a pool's processes judge."""

import multiprocessing
import random

from deap import algorithms, base, creator, tools

creator.create("Fitness", base.Fitness, weights=(1.0,))
creator.create("Individual", list, fitness=creator.Fitness)


def judge(individual):
    return (sum(individual),)


if __name__ == "__main__":
    random.seed(1)
    tools_of = base.Toolbox()
    tools_of.register("bit", random.randint, 0, 1)
    tools_of.register("individual", tools.initRepeat, creator.Individual, tools_of.bit, 20)
    tools_of.register("population", tools.initRepeat, list, tools_of.individual)
    tools_of.register("evaluate", judge)
    tools_of.register("mate", tools.cxTwoPoint)
    tools_of.register("mutate", tools.mutFlipBit, indpb=0.05)
    tools_of.register("select", tools.selTournament, tournsize=3)
    pool = multiprocessing.get_context("fork").Pool(2)
    tools_of.register("map", pool.map)
    found, _ = algorithms.eaSimple(tools_of.population(n=30), tools_of, 0.5, 0.2, 5, verbose=False)
    pool.close()
    pool.join()
    print(sorted(map(sum, found)))
