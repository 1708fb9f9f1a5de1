"""A cluster that is not there: engines that serve requests, a load over a day, and a real Prometheus that looks on."""
