"""Scripted controllers: the expert is near the optimum, and quality grades it down to random."""

import numpy as np
import pytest
import ringrl_envs

DARK_ROOM = "ringrl/DarkRoom-v0"
KEY_TO_DOOR = "ringrl/DarkKeyToDoor-v0"
POINT_MAZE = "ringrl/HiddenGoalPointMaze-v0"


def episodes_at(env_id, quality, count, num_envs, task_ids=None, kind="scripted", **kwargs):
    vector = ringrl_envs.make_vector(env_id, num_envs, **kwargs)
    controller = ringrl_envs.make_controller(env_id, vector, kind=kind, quality=quality)
    episodes = ringrl_envs.collect_episodes(
        vector, [("scripted", 1.0, controller)], total_episodes=count, task_ids=task_ids, seed=2
    )
    vector.close()
    return episodes


def mean_return(episodes):
    return float(np.mean([episode.rewards.sum() for episode in episodes]))


def test_dark_room_expert_is_the_optimum_on_every_task():
    ids = ringrl_envs.task_ids(DARK_ROOM, "all")
    goals = ringrl_envs.make(DARK_ROOM).unwrapped.task_goals
    distance = np.abs(goals - 4).sum(axis=1)
    optimum = np.minimum(21 - distance, 20)  # the first reward comes with the step that arrives
    episodes = episodes_at(DARK_ROOM, 1.0, len(ids), 16, task_ids=ids)
    assert [episode.rewards.sum() for episode in episodes] == optimum.tolist()
    assert 16.0 < optimum[ringrl_envs.task_ids(DARK_ROOM, "held_out")].mean() < 17.0


def test_sparse_dark_room_ends_on_arrival():
    episodes = episodes_at(DARK_ROOM, 1.0, 65, 16, reward="sparse")
    goals = ringrl_envs.make(DARK_ROOM).unwrapped.task_goals
    for episode in episodes:
        distance = np.abs(goals[episode.task_id] - 4).sum()
        assert len(episode.rewards) == max(distance, 1)
        assert episode.rewards.sum() == 1.0
        assert episode.terminations[-1]


def test_key_to_door_expert_finds_both():
    episodes = episodes_at(KEY_TO_DOOR, 1.0, 64, 16)
    assert {episode.rewards.sum() for episode in episodes} == {2.0}
    assert all(episode.terminations[-1] for episode in episodes)


@pytest.mark.parametrize(
    ("env_id", "count", "best", "worst"),
    [(DARK_ROOM, 130, 16.0, 1.0), (KEY_TO_DOOR, 128, 1.99, 0.8), (POINT_MAZE, 64, 16.5, 2.0)],
)
def test_quality_grades_the_return(env_id, count, best, worst):
    returns = [mean_return(episodes_at(env_id, quality, count, 64)) for quality in (0.0, 0.15, 1.0)]
    assert returns[0] < worst
    assert returns[0] < returns[1] < returns[2]
    assert returns[2] > best


@pytest.mark.parametrize(("env_id", "best"), [(DARK_ROOM, 16.0), (POINT_MAZE, 16.5)])
def test_fewer_detours_return_more(env_id, best):
    returns = [mean_return(episodes_at(env_id, quality, 64, 64, kind="detour")) for quality in (0.0, 0.5, 1.0)]
    assert returns[0] < 0.5 * returns[1] < 0.5 * returns[2]
    assert returns[2] > best


def test_detours_search_more_of_the_room_than_random_actions():
    def cells_seen(kind):
        episodes = episodes_at(DARK_ROOM, 0.0, 64, 64, kind=kind)
        return np.mean([len(np.unique(episode.observations, axis=0)) for episode in episodes])

    assert cells_seen("detour") > 1.5 * cells_seen("scripted")


def test_detours_name_their_quality_and_need_places():
    assert episodes_at(DARK_ROOM, 0.5, 1, 1, kind="detour")[0].policy == "detour(q=0.50)"
    with pytest.raises(ValueError, match="Pendulum-v1 has no places"):
        episodes_at("Pendulum-v1", 0.5, 1, 1, kind="detour")


def test_hidden_goal_expert_finds_its_way_around_walls():
    episodes = episodes_at(POINT_MAZE, 1.0, 64, 64, maze="umaze", start_cell=(1, 1), max_steps=40)
    assert all(episode.rewards[-1] == 1.0 for episode in episodes)


@pytest.mark.parametrize("env_id", ["PointMaze_UMaze-v3", "PointMaze_Medium-v3"])
def test_waypoint_controller_reaches_the_goal_of_robotics_mazes(env_id):
    episodes = episodes_at(env_id, 1.0, 6, 3)
    assert all(episode.rewards[-1] == 1.0 for episode in episodes)


def test_pendulum_swings_up_and_stays_up():
    episodes = episodes_at("Pendulum-v1", 1.0, 8, 8)
    for episode in episodes:
        assert episode.observations[-50:, 0].min() > 0.95
    assert mean_return(episodes) > -260
    assert mean_return(episodes_at("Pendulum-v1", 0.0, 8, 8)) < -800


def test_quality_is_drawn_for_every_episode_and_named():
    vector = ringrl_envs.make_vector(DARK_ROOM, 4)
    controller = ringrl_envs.make_controller(DARK_ROOM, vector)
    rng = np.random.default_rng(0)
    controller.reset(np.ones(4, bool), rng)
    before = controller.quality.copy()
    controller.reset(np.array([True, False, False, False]), rng)
    assert (before == controller.quality).tolist() == [False, True, True, True]
    assert controller.labels()[0] == f"scripted(q={controller.quality[0]:.2f})"


def test_environments_without_a_controller_are_told_which_have_one():
    vector = ringrl_envs.make_vector("CartPole-v1", 2)
    with pytest.raises(ValueError, match=r"CartPole-v1 has no scripted controller, only .*Pendulum-v1"):
        ringrl_envs.make_controller("CartPole-v1", vector)
    with pytest.raises(ValueError, match="none of scripted, detour, random"):
        ringrl_envs.make_controller("CartPole-v1", vector, kind="clever")
    random = ringrl_envs.make_controller("CartPole-v1", vector, kind="random")
    observations, _ = vector.reset(seed=0)
    assert set(random.act(observations, np.random.default_rng(0)).tolist()) <= {0, 1}
    maze = ringrl_envs.make_vector(POINT_MAZE, 2)
    with pytest.raises(ValueError, match="not between 0"):
        ringrl_envs.make_controller(POINT_MAZE, maze, quality=1.5)
    maze.close()
