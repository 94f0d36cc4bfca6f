"""How an answer is made: imputed features, the fallback chain, what was last known, ensembles."""
