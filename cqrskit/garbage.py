"""How often Python looks for garbage in processes that do one thing."""

import gc

__all__ = ["collect_garbage_rarely"]


def collect_garbage_rarely(threshold_objects: int) -> None:
    """Look for cycles after so many new objects only; 0 leaves Python as it is.

    Commands and folds make many objects that die by themselves; looking for cycles among them costs much time. What is
    there now is not looked at again, and a full search waits for a thousand of the small ones.
    """
    if threshold_objects:
        gc.freeze()
        gc.set_threshold(threshold_objects, 20, 50)
