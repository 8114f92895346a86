"""The commented config that `octoroute config` gives to newcomers, kept in octoroute/config_template.toml."""

from importlib.resources import files


def template() -> str:
    """A valid config that explains every key."""
    return files("octoroute").joinpath("config_template.toml").read_text(encoding="utf-8")
