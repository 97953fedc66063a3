"""Names of the dm_control tasks; nothing of dm_control is imported here."""

CORNERS = ("reach_top_left", "reach_top_right", "reach_bottom_left", "reach_bottom_right")
TASKS = {
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse"),
    "cheetah": ("run", "run_backward", "flip", "flip_backward"),
    "jaco": CORNERS,
    "point_mass_maze": CORNERS,
    "quadruped": ("stand", "walk", "run", "jump"),
    "walker": ("stand", "walk", "run", "flip"),
}
ENTRY_POINT = "ringrl_envs.dmc.environment:DmcEnv"


def dmc_tasks(domain: str | None = None) -> list[str]:
    """Tasks of a domain, or of all, such as "walker_stand".

    Raises:
        ValueError: no such domain.
    """
    if domain is not None and domain not in TASKS:
        raise ValueError(f"Unknown dm_control domain {domain!r}: one of {', '.join(TASKS)}.")
    domains = TASKS if domain is None else [domain]
    return [f"{name}_{task}" for name in domains for task in TASKS[name]]


def dmc_id(task: str) -> str:
    """gymnasium id of a task such as "walker_stand".

    Raises:
        ValueError: no such task.
    """
    split_task(task)
    return f"ringrl/dmc_{task}-v0"


def task_of_id(env_id: str) -> str:
    """Task of an id that `dmc_id` gives.

    Raises:
        ValueError: not the id of a dm_control task.
    """
    task = env_id.removeprefix("ringrl/dmc_").removesuffix("-v0")
    if task not in dmc_tasks() or dmc_id(task) != env_id:
        raise ValueError(f"{env_id!r} is no dm_control environment of RingRL: such as {dmc_id('walker_stand')!r}.")
    return task


def split_task(task: str) -> tuple[str, str]:
    """(domain, task within it).

    Raises:
        ValueError: no such task.
    """
    for domain, names in TASKS.items():
        name = task.removeprefix(f"{domain}_")
        if name != task and name in names:
            return domain, name
    raise ValueError(f"Unknown dm_control task {task!r}: one of {', '.join(dmc_tasks())}.")


def max_steps(task: str) -> int:
    """Control steps in an episode."""
    return 250 if split_task(task)[0] == "jaco" else 1000
