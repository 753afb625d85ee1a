"""From a study file to the graph of unique stages that it trains and compares. Needs neither torch nor Ray."""
