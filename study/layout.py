"""Names of the files in a study's folder."""

SPEC = "spec.yaml"
PLAN = "plan.json"
DRIVER = "driver.json"
FAILURES = "failures.jsonl"
RESULTS = "results.parquet"
COMPARISONS = "comparisons.parquet"
TESTS = "tests.parquet"
