"""Whether a config is a study: every name means something, and the study can be run.

Each check raises UserError with one sentence for the first mistake it finds.
"""

from es2.settings.checks.attacks import check_attacks, check_bundle, check_trials
from es2.settings.checks.data import check_data, check_selection
from es2.settings.checks.judges import check_judges
from es2.settings.checks.names import check_list
from es2.settings.checks.report import check_reference, check_report
from es2.settings.checks.runs import check_runs
from es2.settings.study import Config


def check(config: Config) -> None:
    """Check everything that needs more than one row, but for the runs' training (see checks.runs.check_training)."""
    check_selection(config)
    check_data(config)
    check_runs(config)
    check_judges(config)
    check_attacks(config)
    for name, bundle in config.bundles.items():
        check_bundle(config, name, bundle)
    for name, sweep in config.sweeps.items():
        check_list(f"sweeps.{name}.models", "model", sweep.models or [], config.models)
        check_list(f"sweeps.{name}.runs", "run", sweep.runs, config.runs)
        check_list(f"sweeps.{name}.bundles", "bundle", sweep.bundles, config.bundles)
    check_trials(config)
    check_reference(config)
    check_report(config)
