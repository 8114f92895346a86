"""The kinds of value that a key may hold, each with its rule and the words that say what is allowed.

A check here looks at one value alone; rules between keys are in agreement.py. A check that fails raises
`refuse(hint)`: the sentence around it (key, value, what is allowed) is made in problems.py.
"""

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError

from octoroute.config.references import References, start_of

HINT: Final = "octoroute_hint"
UNRESOLVED: Final = "octoroute_unresolved"
PEM_BEGIN: Final = "-----BEGIN"

# sun_path of Linux is 108 bytes and ends with a zero byte.
MAX_SOCKET_PATH_BYTES: Final = 107

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DATABASE = re.compile("/?[0-9]{0,6}")
_SHA256 = re.compile("[0-9a-f]{64}")
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a key may hold, as it stands in messages ("it must be ...") and in the documentation."""

    text: str


def refuse(hint: str = "") -> PydanticCustomError:
    """A value that is not allowed; `hint` tells what is wrong with it where the rule alone would not."""
    return PydanticCustomError(HINT, "{hint}", {"hint": hint})


def _resolve(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str) or not isinstance(info.context, References):
        return value
    found = info.context.look_up(value)
    if found.trouble:
        raise PydanticCustomError(UNRESOLVED, "{trouble}", {"trouble": found.trouble})
    return found.text


# Makes a key take its value from `env:NAME` or `file:PATH`.
REFERENCE: Final = BeforeValidator(_resolve)


def _is_plain(text: str) -> bool:
    return all(character.isprintable() for character in text)


def _name(value: str) -> str:
    if not value or not _is_plain(value):
        raise refuse()
    return value


def _plain(value: str) -> str:
    if not _is_plain(value):
        raise refuse()
    return value


def _is_host(text: str) -> bool:
    """Whether it is an IP address or a host name; a numeric ending, as in 10.0.0.256, is a wrong address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        last_label = text.rstrip(".").rpartition(".")[2]
        return len(text) <= 253 and _HOST_NAME.fullmatch(text) is not None and not last_label.isdigit()
    return True


def _host(value: str) -> str:
    if value.startswith("unix:"):
        path = value.removeprefix("unix:")
        if not path.startswith("/") or path.endswith("/") or not _is_plain(path):
            raise refuse("the path of a socket starts with / and names a file")
        if len(path.encode()) > MAX_SOCKET_PATH_BYTES:
            raise refuse(f"the path of a socket has at most {MAX_SOCKET_PATH_BYTES} bytes")
        return value
    if _is_host(value):
        return value
    if "://" in value:
        raise refuse("leave out the scheme")
    if value.startswith("[") and value.endswith("]"):
        raise refuse("write an IPv6 address without brackets")
    if _is_host(value.rpartition(":")[0]):
        raise refuse("the port belongs in server.port")
    raise refuse()


def _base_url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise refuse("" if "://" in value else "put http:// or https:// in front")
    if not (value.isascii() and _is_plain(value)) or " " in value or "\\" in value:
        raise refuse("it has a character that no URL has")
    if "?" in value or "#" in value:
        raise refuse("leave out everything from the ? or # on")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise refuse("its host or port is not valid; a port is a number from 1 to 65535") from None
    if "@" in parts.netloc:
        raise refuse("leave out user and password; a key for the server belongs in api_key")
    if not host:
        raise refuse("it has no host")
    if not _is_host(host):
        raise refuse("its host is not valid")
    if port == 0 or parts.netloc.endswith(":"):
        raise refuse("its port is not valid; a port is a number from 1 to 65535")
    if parts.path.endswith("/v1"):
        return value
    if parts.path.rstrip("/").endswith("/v1"):
        raise refuse("remove the slash at the end")
    if "/v1/" in parts.path:
        raise refuse("leave out what comes after /v1")
    raise refuse("add /v1 at the end")


def _server_url(value: str) -> str:
    return one_spelling(_base_url(value))


def one_spelling(url: str) -> str:
    """The same for all spellings of a valid base URL that can be told to be one server's without a look at
    the network: the host in lower case, an IPv6 address in its short form, no port that goes without saying.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{ipaddress.IPv6Address(host).compressed}]"
    usual = 443 if parts.scheme == "https" else 80
    port = "" if parts.port in (None, usual) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _source_url(value: str) -> str:
    value = _base_url(value)
    try:
        ipaddress.ip_address(urlsplit(value).hostname or "")
    except ValueError:
        return value
    raise refuse("its host is an address; a server that is known belongs in [[models.TIER]]")


def _host_name(value: str) -> str:
    if value and not _is_host(value):
        raise refuse()
    return value


def _resolver(value: str) -> str:
    """An address, with a port if need be: `10.0.0.10`, `10.0.0.10:53`, `fd00::10`, `[fd00::10]:53`."""
    if value:
        try:
            split_resolver(value)
        except ValueError:
            raise refuse() from None
    return value


def split_resolver(text: str) -> tuple[str, int]:
    """Address and port of a name server. Raises ValueError."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        host, port = text.split(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{port!r} is not a port")
    return str(ipaddress.ip_address(host)), int(port)


def _api_key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    # It travels in a header: a line break in it would be a header of its own.
    if not (text.isascii() and _is_plain(text)) or text != text.strip():
        raise refuse()
    return value


def _key_of_client(value: SecretStr) -> SecretStr:
    """The digest of the key: the key itself is not kept."""
    text = value.get_secret_value()
    # A client sends it in a header, behind `Bearer `.
    if not text or not (text.isascii() and _is_plain(text)) or " " in text:
        raise refuse()
    return SecretStr(hashlib.sha256(text.encode()).hexdigest())


def _sha256(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().lower()
    if _SHA256.fullmatch(text) is None:
        raise refuse("`printf %s KEY | sha256sum` prints it")
    return SecretStr(text)


def _redis_url(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text:
        return value
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise refuse("" if "://" in text else "put redis:// in front")
    if not (text.isascii() and _is_plain(text)) or " " in text or "#" in text:
        raise refuse("it has a character that no URL has; in a password, write % and its code for it")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise refuse("its host or port is not valid; a port is a number from 1 to 65535") from None
    if parts.scheme == "unix":
        if host or len(parts.path) < 2:
            raise refuse("the path of a socket begins with a third slash")
        return value
    if not _is_host(host):
        raise refuse("its host is not valid" if host else "it has no host")
    if port == 0:
        raise refuse("its port is not valid; a port is a number from 1 to 65535")
    if _DATABASE.fullmatch(parts.path) is None:
        raise refuse("behind host and port only the number of a database is allowed")
    return value


def _pem_path(value: str, info: ValidationInfo) -> str:
    if PEM_BEGIN in value:
        raise refuse("this is the text of a PEM file; write its path")
    return _readable_path(value, info)


def _readable_path(value: str, info: ValidationInfo) -> str:
    if not _is_plain(value):
        raise refuse()
    if not value or not isinstance(info.context, References):
        return value
    path = info.context.folder / value
    _, trouble = start_of(path)
    if trouble:
        raise PydanticCustomError(UNRESOLVED, "{trouble}", {"trouble": trouble})
    return str(path)


def _url_path(value: str) -> str:
    if (
        not value.startswith("/")
        or not (value.isascii() and _is_plain(value))
        or " " in value
        or "#" in value
    ):
        raise refuse()
    return value


def _hedge(value: object) -> object:
    if value in ("off", "p95"):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 300:
        raise refuse()
    return float(value)


def _zero_or_a_second(value: float) -> float:
    if 0 < value < 1:
        # llama.cpp takes each poll for a result, and so never notices clients that left if polled more often.
        raise refuse("servers that are asked more often than once a second can miss that a client left")
    return value


Name = Annotated[
    str, REFERENCE, AfterValidator(_name), Allowed("text that is not empty and has no control characters")
]
AliasTarget = Annotated[str, REFERENCE, AfterValidator(_name), Allowed('"auto", a tier or an endpoint name')]
PlainText = Annotated[str, REFERENCE, AfterValidator(_plain), Allowed("text without control characters")]
Host = Annotated[
    str, REFERENCE, AfterValidator(_host), Allowed('an IP address, a host name or "unix:/path/of/socket"')
]
BaseUrl = Annotated[
    str,
    REFERENCE,
    AfterValidator(_server_url),
    Allowed("an http or https URL that ends with /v1, such as http://localhost:8080/v1"),
]
SourceUrl = Annotated[
    str,
    REFERENCE,
    AfterValidator(_source_url),
    Allowed("an http or https URL whose host is a name, and that ends with /v1"),
]
TlsServerName = Annotated[str, REFERENCE, AfterValidator(_host_name), Allowed("a host name, or empty")]
Resolver = Annotated[
    str,
    REFERENCE,
    AfterValidator(_resolver),
    Allowed("an IP address, with a port if it is not 53, or empty"),
]
ApiKey = Annotated[SecretStr, REFERENCE, AfterValidator(_api_key), Allowed("one line of ASCII text")]
ClientKey = Annotated[
    SecretStr,
    REFERENCE,
    AfterValidator(_key_of_client),
    Allowed("one word of ASCII text, best a long random one"),
]
KeyDigest = Annotated[
    SecretStr, REFERENCE, AfterValidator(_sha256), Allowed("a SHA-256 digest: 64 hexadecimal digits")
]
RedisUrl = Annotated[
    SecretStr,
    REFERENCE,
    AfterValidator(_redis_url),
    Allowed("a URL such as redis://localhost:6379/0 (rediss:// with TLS, unix:///path), or empty"),
]
PemPath = Annotated[str, REFERENCE, AfterValidator(_pem_path), Allowed("the path of a PEM file, or empty")]
ReadablePath = Annotated[
    str, REFERENCE, AfterValidator(_readable_path), Allowed("the path of a file, or empty")
]
UrlPath = Annotated[
    str, REFERENCE, AfterValidator(_url_path), Allowed("a path that begins with / and has no spaces")
]
HedgeDelay = Annotated[
    Any, REFERENCE, AfterValidator(_hedge), Allowed('"off", "p95" or a number from 0.01 to 300')
]
PollInterval = Annotated[
    float, AfterValidator(_zero_or_a_second), Allowed("0 (off) or a number from 1 to 3600")
]
