"""How much of a file system is used, read from its own records without mounting it."""

from appliance.agent.filesystem.account import Problem as Problem
from appliance.agent.filesystem.account import Usage as Usage
from appliance.agent.filesystem.usage import read_usage as read_usage
