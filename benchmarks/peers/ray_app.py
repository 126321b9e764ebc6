"""Ray Tune: `python ray_app.py A B …`, one trial at a time."""

import os
import sys

import ray
from ray import tune

from benchmarks.peers.fit import fit


def main() -> None:
    """Tune over the directories."""
    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    resources = tune.with_resources(lambda config: fit(config["directory"]), {"cpu": 1})
    space = {"directory": tune.grid_search(sys.argv[1:])}
    tune.Tuner(
        resources,
        param_space=space,
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(verbose=0, storage_path=os.environ["RAY_STORAGE"]),
    ).fit()


if __name__ == "__main__":
    main()
