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
TENSORBOARD = "tensorboard"

SEAL = "seal.json"
