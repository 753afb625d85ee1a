"""Names of the files in a study's folder, and the one by which a stage's folder is known to be whole."""

SPEC = "spec.yaml"
PLAN = "plan.json"
DRIVER = "driver.json"
FAILURES = "failures.jsonl"
RESULTS = "results.parquet"
COMPARISONS = "comparisons.parquet"
TESTS = "tests.parquet"
MEASURED = ".measured.parquet"
"""What the tables were made of; the dot keeps it on the machine that made it."""
FILES = (SPEC, PLAN, DRIVER, FAILURES, RESULTS, COMPARISONS, TESTS, MEASURED)
TENSORBOARD = "tensorboard"
JOURNAL = "search/journal.log"
"""The trials of a study's searches, as Optuna writes them."""

SEAL = "seal.json"
RECORD = "stage.yaml"
WEIGHTS = "weights.safetensors"
