"""Options of rollouts on Ray's workers, apart from what needs Ray."""

import msgspec


class ClusterOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rollouts on many processes and machines; policy, cell and suite are read from the same paths on all of them."""

    workers: int = 0
    """Ray's rollout workers, each with max_worlds worlds and a copy of the policy; 0: no Ray."""
    address: str | None = None
    """host:port of the Ray cluster; none: one is started on this machine and ends with the run."""
    cpus_a_worker: int = 1
    """CPU cores of a worker: its simulator's and its policy's threads."""
    gpus_a_worker: float = 0.0
    """GPUs of a worker's policy; a fraction shares one."""
    deaths_a_piece: int = 3
    """A piece of a draw that has cost so many workers ends the run; so do as many lost starts in a row."""
    start_timeout_s: float = 600.0
    """How long to wait for a worker when none works."""

    def __post_init__(self) -> None:
        if self.workers < 0 or self.cpus_a_worker < 1 or self.gpus_a_worker < 0 or self.deaths_a_piece < 1:
            raise ValueError(
                "workers and gpus_a_worker must be at least 0, cpus_a_worker and deaths_a_piece at least 1, got "
                f"{self.workers}, {self.gpus_a_worker}, {self.cpus_a_worker} and {self.deaths_a_piece}"
            )
