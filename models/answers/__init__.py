"""How an answer is made: imputation, the fallback chain, last known answers and ensembles."""
