"""The sampler of architectures: numbering, neighbours, purity, and that evolution finds good ones earlier than
random draws."""

import itertools

import pytest

from worker.distillation.planning.search import GIVEN, Sampler, choices, neighbours, size

SPACE = ((2, 3), (), (4,))
EVERY = (
    [(0, values) for values in itertools.product(range(2), range(3))] + [(1, ())] + [(2, (each,)) for each in range(4)]
)


def sampler(kind="random", population=4, sample=2, seed=0):
    return Sampler(kind, population, sample, seed)


def run(sampler, space, reward, trials):
    """The architectures that a search tries if `reward` gives the reward of each number."""
    rewards = []
    while len(rewards) < trials and (number := sampler.propose(space, tuple(rewards))) is not None:
        rewards.append(reward(number))
    return sampler.tried(space, tuple(rewards))


def test_every_architecture_has_a_number():
    assert size(SPACE) == len(EVERY) == 11
    assert [choices(SPACE, number) for number in range(11)] == EVERY
    with pytest.raises(ValueError, match="no architecture"):
        choices(SPACE, 11)


def test_neighbours_differ_in_one_option():
    for number, (family, values) in enumerate(EVERY):
        expected = [
            other
            for other, (its_family, its_values) in enumerate(EVERY)
            if its_family == family and sum(a != b for a, b in zip(values, its_values, strict=True)) == 1
        ]
        assert sorted(neighbours(SPACE, number)) == expected


@pytest.mark.parametrize("kind", ["random", "evolution"])
def test_all_are_tried_once_and_the_given_one_first(kind):
    tried = run(sampler(kind), SPACE, lambda number: -abs(number - 4), 50)
    assert tried[0] == GIVEN
    assert sorted(tried[1:]) == list(range(11))


@pytest.mark.parametrize("kind", ["random", "evolution"])
def test_a_proposal_depends_on_seed_and_rewards_alone(kind):
    rewards = tuple(float(each % 5) for each in range(9))
    space = ((3, 4, 5),)
    first = [sampler(kind, seed=3).propose(space, rewards[:count]) for count in range(10)]
    again = [sampler(kind, seed=3).propose(space, rewards[:count]) for count in reversed(range(10))]
    assert first == again[::-1]
    assert first != [sampler(kind, seed=4).propose(space, rewards[:count]) for count in range(10)]


def total(space, number):
    return float(sum(choices(space, number)[1])) if number != GIVEN else 0.0


def test_evolution_draws_neighbours_of_the_best_of_the_newest():
    space, population = ((6, 6, 6),), 5
    search = sampler("evolution", population, population)  # the parent is the best of the newest
    tried = run(search, space, lambda number: total(space, number), 30)
    for trial in range(population + 1, len(tried)):
        alive = [each for each in tried[trial - population : trial] if each != GIVEN]
        most = max(total(space, each) for each in alive)
        left = [set(neighbours(space, each)) - set(tried[:trial]) for each in alive if total(space, each) == most]
        assert any(tried[trial] in each or not each for each in left)


def test_evolution_beats_random_draws_if_neighbours_are_similar():
    space = ((8, 8, 8, 8),)

    def reward(number):
        return total(space, number)

    def best(kind, seed):
        return max(map(reward, run(Sampler(kind, 8, 3, seed), space, reward, 40)))

    assert sum(best("evolution", seed) for seed in range(6)) > sum(best("random", seed) for seed in range(6)) + 6
