"""All cases."""

from __future__ import annotations

from dataclasses import replace

from tests.cases.core_convs import CORE_CONVS
from tests.cases.models import CORE_MODELS, MORE_MODELS
from tests.cases.more_convs import MORE_CONVS
from tests.cases.parts import PARTS
from tests.cases.users import HETEROS, USERS

#: One or a few configurations per layer and model: what the tests of the single layers of the compiler use.
CORE = [replace(case, core=True) for case in [*CORE_CONVS, *CORE_MODELS, *USERS, *HETEROS]]
ALL = [*CORE, *MORE_CONVS, *MORE_MODELS, *PARTS]
BY_ID = {case.id: case for case in ALL}
assert len(BY_ID) == len(ALL), sorted(c.id for c in ALL if sum(c.id == d.id for d in ALL) > 1)
