from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distributions

import pytest

from fusionkit._util import requirements
from fusionkit._util.requirements import Need, extras, needs
from tests.fake_distributions import Site

METADATA = """\
Metadata-Version: 2.1
Name: tensor-fusionkit
Version: 0.1.0
Requires-Dist: fk-here>=1
Requires-Dist: fk-old>=2
Requires-Dist: fk-none
Requires-Dist: fk-elsewhere; sys_platform == 'nowhere'
Provides-Extra: plot
Requires-Dist: fk-plot>=3; extra == 'plot'
Requires-Dist: fk-here[fast]>=1; extra == 'plot'
Provides-Extra: all
Requires-Dist: tensor-fusionkit[plot]; extra == 'all'
"""


def test_each_with_what_is_found(site: Site) -> None:
    site.install("tensor-fusionkit", metadata=METADATA, version="0.1.0")
    site.install("fk-here", version="1.0rc1")
    site.install("fk-old", version="1.9")
    assert needs() == [
        Need("fk-here>=1", "fk-here", "", "1.0rc1", False),
        Need("fk-old>=2", "fk-old", "", "1.9", False),
        Need("fk-none", "fk-none", "", None, False),
        Need("fk-plot>=3", "fk-plot", "plot", None, False),
        Need("fk-here[fast]>=1", "fk-here", "plot", "1.0rc1", False),
    ]
    assert extras() == ["plot", "all"]


@pytest.mark.parametrize(("version", "met"), [("1.0", True), ("1.1rc1", True), ("2", True), ("0.9", False)])
def test_a_version_that_will_do(version: str, met: bool, site: Site) -> None:
    site.install("tensor-fusionkit", metadata=METADATA, version="0.1.0")
    site.install("fk-here", version=version)
    assert needs()[0] == Need("fk-here>=1", "fk-here", "", version, met)


def test_of_a_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "DISTRIBUTION", "fk-nowhere")
    assert not list(distributions(name="fk-nowhere"))
    with pytest.raises(PackageNotFoundError):
        needs()
