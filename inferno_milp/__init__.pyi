from ._version import __version__ as __version__
from .errors import (
    InfernoError as InfernoError,
)
from .errors import (
    InputError as InputError,
)
from .errors import (
    OptionError as OptionError,
)
from .errors import (
    PlanCheckError as PlanCheckError,
)
from .plan import Plan as Plan
from .plan.differences import diff as diff
from .plan.differences import with_current as with_current
from .plan.file import read_plan as read_plan
from .planning.disaggregation.split import disaggregate as disaggregate
from .planning.horizon.plan import plan_periods as plan_periods
from .planning.horizon.plan import plan_scenarios as plan_scenarios
from .planning.optimize import build_model as build_model
from .planning.optimize import optimize as optimize
from .planning.routing.requests import mix_of_requests as mix_of_requests
from .planning.routing.route import find_routes as find_routes
from .planning.routing.tables import read_throughput_table as read_throughput_table
from .planning.routing.tables import route_table as route_table
from .planning.sharing.share import share_replicas as share_replicas
from .problem import Problem as Problem
from .problem.reading import (
    read_problem as read_problem,
)
from .problem.reading import (
    read_problem_data as read_problem_data,
)
from .problem.reading import (
    read_problem_text as read_problem_text,
)
from .problem.reading.settings import with_settings as with_settings
from .problem.writing import problem_text as problem_text
from .profiles.catalogue import shipped_catalogue as shipped_catalogue
from .profiles.fitting import fit_profile as fit_profile
from .profiles.fitting.tracking import track_profile as track_profile
from .profiles.measurements import read_measurements as read_measurements
from .profiles.roofline import estimate_profile as estimate_profile
from .queueing import analyze as analyze
from .queueing import analyze_closed as analyze_closed
from .queueing import size as size
from .report.html import report_html as report_html
from .report.manifests import export_manifests as export_manifests
from .studies.clusters import plan_clusters as plan_clusters
from .studies.explain import explain as explain
from .studies.generate import generate_problem as generate_problem
from .studies.load_change import (
    change_loads as change_loads,
)
from .studies.load_change import (
    find_transition as find_transition,
)
from .studies.load_change import (
    scale_server as scale_server,
)
from .studies.prices import find_prices as find_prices
from .studies.simulate import simulate_plan as simulate_plan
from .studies.simulate_splits import simulate_splits as simulate_splits
from .studies.sweeps import find_frontier as find_frontier
from .studies.sweeps import sweep as sweep
