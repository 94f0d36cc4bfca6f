"""How the demo's models were made; needs the extra ``training``, which a worker does not."""
