"""From declared runs to finished records: the store, one run after the other or many side by side, several GPUs, a cluster."""
