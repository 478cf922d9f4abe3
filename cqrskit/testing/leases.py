"""Leases taken by hand, for tests and measurements that run a projector themselves."""

from cqrskit.application import Runtime
from cqrskit.checkpoints import GenerationState, Lease
from cqrskit.fingerprint import fingerprint_of
from cqrskit.projection import Projection

__all__ = ["leased"]


async def leased(runtime: Runtime, projection: type[Projection], partition: int = 0, seconds: float = 600.0) -> Lease:
    """A lease on a partition of the live generation, which is made if there is none. Nobody else may hold one."""
    checkpoints = runtime.checkpoints
    number = await checkpoints.create_generation(
        projection.name, GenerationState.LIVE, fingerprint_of(projection), projection.partitions
    )
    identity = await runtime.read_store.prepare(projection.index(number))
    await checkpoints.set_index(projection.name, number, identity)
    lease = await checkpoints.claim("by hand", projection.name, number, partition, seconds=seconds)
    if lease is None:
        raise AssertionError(f"somebody holds partition {partition} of {projection.name}")
    return lease
