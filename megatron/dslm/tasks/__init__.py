"""Fine-tuning tasks: their files, examples, metrics and heads."""

from megatron.dslm.tasks.base import Example, Task
from megatron.dslm.tasks.glue import GLUE_TASKS
from megatron.dslm.tasks.race import RACE

__all__ = ["TASKS", "Example", "Task"]

TASKS: dict[str, Task] = {task.name: task for task in (*GLUE_TASKS, RACE)}
"""By the name that --task takes."""
