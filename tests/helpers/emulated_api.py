"""An emulated cluster behind the double of an API server: what runs are objects, and what is asked of these is done."""

from __future__ import annotations

from datetime import UTC, datetime

from api_double import deployment, pod

from inferno_milp.control.emulation.cluster import EmulatedCluster


class ClusterBehindApi(EmulatedCluster):
    """Keeps its deployments and its pods as objects of `double`."""

    @classmethod
    def of(cls, emulated, double):
        found = cls(emulated.problem, emulated.started_s, emulated.startup_s, emulated.seed)
        found.double, found.shown = double, {}
        double.on_change = found.follow
        return found

    def deploy(self, replicas, batches):
        super().deploy(replicas, batches)
        for d in self.read().deployments:
            item = deployment(d.name, d.server, d.accelerator, d.replicas, d.namespace, d.batch_size)
            self.double.put("deployments", item)
        self.show_pods()

    def advance(self, until_s, requests):
        super().advance(until_s, requests)
        self.show_pods()

    def follow(self, key, item):
        """Do what was asked for through the API."""
        if key[0] == "deployments" and key[2] in self._deployments:
            d = self._deployments[key[2]]
            if item["spec"]["replicas"] != d.replicas:
                self.scale(d, item["spec"]["replicas"])

    def show_pods(self):
        now = {}
        for d in self.read().deployments:
            for one in d.pods:
                now[one.name] = (d, one)
        for name in set(self.shown) - set(now):
            self.double.remove("pods", self.namespace, name)
            del self.shown[name]
        for name, (d, one) in now.items():
            if self.shown.get(name) != one:
                item = pod(name, d.name, d.namespace, is_ready=one.ready_since_s is not None, is_leaving=one.is_leaving)
                since = datetime.fromtimestamp(one.ready_since_s or 0, UTC).isoformat()
                item["status"]["conditions"][0]["lastTransitionTime"] = since
                self.double.put("pods", item)
                self.shown[name] = one
