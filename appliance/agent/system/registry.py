"""Who recognises which system. A new kind is added here, and in modules of its own."""

from __future__ import annotations

from appliance.agent.system import bsd, linux, unknown
from appliance.agent.system.candidate import Recogniser
from appliance.agent.system.windows import recognise as windows

RECOGNISERS: list[Recogniser] = [
    windows.recognise,
    linux.recognise,
    bsd.recognise,
    unknown.recognise,
]
"""In the order in which they are asked; the first that knows the system reads it."""
