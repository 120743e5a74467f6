"""From declared runs to finished records and measurements: the store, one run or many side by side, several GPUs, a cluster."""
