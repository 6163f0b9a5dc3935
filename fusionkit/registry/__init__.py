"""The registry: which fusions, fabrications and data sets there are, where each comes from, what every name means."""

from fusionkit.registry.catalogue import Record as Record
from fusionkit.registry.loading import Kind as Kind
from fusionkit.registry.loading import Operator as Operator
from fusionkit.registry.lookup import DeprecatedNameWarning as DeprecatedNameWarning
from fusionkit.registry.lookup import checks as checks
from fusionkit.registry.lookup import conf_paths as conf_paths
from fusionkit.registry.lookup import dataset as dataset
from fusionkit.registry.lookup import fabrications as fabrications
from fusionkit.registry.lookup import find as find
from fusionkit.registry.lookup import fusions as fusions
from fusionkit.registry.lookup import isolated as isolated
from fusionkit.registry.lookup import key_of as key_of
from fusionkit.registry.lookup import load as load
from fusionkit.registry.lookup import names as names
from fusionkit.registry.lookup import plugins as plugins
from fusionkit.registry.lookup import quarantined as quarantined
from fusionkit.registry.lookup import records as records
from fusionkit.registry.lookup import refresh as refresh
from fusionkit.registry.lookup import register as register
from fusionkit.registry.lookup import resolve as resolve
from fusionkit.registry.lookup import run_finished as run_finished
from fusionkit.registry.lookup import verify as verify
