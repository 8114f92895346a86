"""What `octoroute check` says of the Redis that limits are shared by: whether it can be used from here."""

import asyncio

from octoroute.config.wording import url_without_secrets
from octoroute.errors import ConfigError
from octoroute.sharing.line import Away, Line


def inspect(url: str) -> str:
    """One sentence, without the secrets of the URL."""
    where = f"Limits hold across gateways by Redis at {url_without_secrets(url)}"
    try:
        line = Line(url, "return 0")
    except ConfigError as error:
        return f"{where}, but {error.problems[0]}"
    try:
        asyncio.run(_ask(line))
    except Away as away:
        return f"{where}, which can't be used from here now: {away}"
    return f"{where}, which can be used from here."


async def _ask(line: Line) -> None:
    try:
        await line.open()
    finally:
        await line.close()
