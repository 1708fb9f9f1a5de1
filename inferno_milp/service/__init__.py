"""The REST service (extra `service`): llm-inferno's API, one of our own with jobs, and a page to plan on.

`app` puts it together from rooms that import downward: `guard` (what every request passes), `page`, `v1` and `seed`
(the three surfaces), `jobs` (long work), `store` (what is kept), `pool` (processes that work), `work` (what they do).
"""

from inferno_milp.service.app import make_app, run_service
from inferno_milp.service.config import ServiceConfig

__all__ = ["ServiceConfig", "make_app", "run_service"]
