"""Hosts, URLs, keys and paths: what is taken, what is refused, and the hint that comes with it."""

import math

import pytest

from tests.config.sample import config, problem, problems_of, sample

HOST_RULE = 'it must be an IP address, a host name or "unix:/path/of/socket"'
URL_RULE = "it must be an http or https URL that ends with /v1, such as http://localhost:8080/v1"


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "127.0.0.1",
        "::",
        "::1",
        "fe80::1%eth0",
        "localhost",
        "my-host.example.org",
        "gpu_1",
        "1.example",
        "example.org.",
        "unix:/run/octoroute.sock",
        "unix:/a b",
    ],
)
def test_a_host_may_be(host: str) -> None:
    assert config(("server.host", host)).server.host == host


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        ("", ""),
        (" ", ""),
        ("256.0.0.1", ""),
        ("127.0.0", ""),
        ("a..b", ""),
        ("-a", ""),
        ("a" * 64, ""),
        ("a b", ""),
        ("bücher.example", ""),
        ("[::1]", " (write an IPv6 address without brackets)"),
        ("0.0.0.0:3000", " (the port belongs in server.port)"),
        ("localhost:3000", " (the port belongs in server.port)"),
        ("http://localhost", " (leave out the scheme)"),
        ("unix:", " (the path of a socket starts with / and names a file)"),
        ("unix:relative.sock", " (the path of a socket starts with / and names a file)"),
        ("unix:/run/", " (the path of a socket starts with / and names a file)"),
        ("unix:/" + "x" * 107, " (the path of a socket has at most 107 bytes)"),
    ],
)
def test_a_host_may_not_be(host: str, hint: str) -> None:
    assert problem(("server.host", host)) == f'server.host is "{host}"; {HOST_RULE}{hint}'


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080/v1",
        "https://models.example.org/v1",
        "http://10.0.0.1:1/v1",
        "http://[::1]:65535/v1",
        "http://gpu_1/some/prefix/v1",
        "http://host/a%20b/v1",
        "http://host//v1",
    ],
)
def test_a_base_url_may_be(url: str) -> None:
    assert config(("models.fast.0.base_url", url)).models.fast[0].base_url == url


@pytest.mark.parametrize(
    ("url", "spelling"),
    [
        ("http://GPU-1.Lab:8080/v1", "http://gpu-1.lab:8080/v1"),
        ("http://gpu-1:80/v1", "http://gpu-1/v1"),
        ("https://gpu-1:443/v1", "https://gpu-1/v1"),
        ("http://gpu-1:443/v1", "http://gpu-1:443/v1"),
        ("http://gpu-1:08080/v1", "http://gpu-1:8080/v1"),
        ("http://[FD00:0:0::0001]:80/v1", "http://[fd00::1]/v1"),
        ("http://gpu-1:80/Models/A/v1", "http://gpu-1/Models/A/v1"),
        ("http://localhost:8080/v1", "http://localhost:8080/v1"),
    ],
)
def test_a_server_has_one_url_however_it_is_spelt(url: str, spelling: str) -> None:
    assert config(("models.fast.0.base_url", url)).models.fast[0].base_url == spelling


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("", "put http:// or https:// in front"),
        ("localhost:8080/v1", "put http:// or https:// in front"),
        ("ftp://host/v1", ""),
        ("HTTP://host/v1", ""),
        ("http://host", "add /v1 at the end"),
        ("http://host:8080/", "add /v1 at the end"),
        ("http://host/v2", "add /v1 at the end"),
        ("http://host/V1", "add /v1 at the end"),
        ("http://host/v1/", "remove the slash at the end"),
        ("http://host/v1//", "remove the slash at the end"),
        ("http://host/v1/chat/completions", "leave out what comes after /v1"),
        ("http://host/v1#there", "leave out everything from the ? or # on"),
        ("http://host/v1?", "leave out everything from the ? or # on"),
        ("http:///v1", "it has no host"),
        ("http://:8080/v1", "it has no host"),
        ("http://ho st/v1", "it has a character that no URL has"),
        ("http://host\\a/v1", "it has a character that no URL has"),
        ("http://host\n/v1", "it has a character that no URL has"),
        ("http://bücher/v1", "it has a character that no URL has"),
        ("http://ho*st/v1", "its host is not valid"),
        ("http://10.0.0.256/v1", "its host is not valid"),
        ("http://[::1/v1", "its host or port is not valid; a port is a number from 1 to 65535"),
        ("http://host:65536/v1", "its host or port is not valid; a port is a number from 1 to 65535"),
        ("http://host:http/v1", "its host or port is not valid; a port is a number from 1 to 65535"),
        ("http://host:/v1", "its port is not valid; a port is a number from 1 to 65535"),
        ("http://host:0/v1", "its port is not valid; a port is a number from 1 to 65535"),
    ],
)
def test_a_base_url_may_not_be(url: str, hint: str) -> None:
    message = problem(("models.fast.0.base_url", url))
    assert message.startswith('models.fast[0].base_url (endpoint "small") is "')
    assert message.endswith(f"{URL_RULE} ({hint})" if hint else URL_RULE)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:hidden@host/v1", "http://***@host/v1"),
        ("http://me:hid@den@host/v1", "http://***@host/v1"),
        ("http://me:hid/den@host/v1", "http://***@host/v1"),
        ("me:hidden@host/v1", "***@host/v1"),
        ("http://host/v1?key=hidden", "http://host/v1?***"),
    ],
)
def test_a_password_in_a_base_url_is_refused_and_not_shown(url: str, shown: str) -> None:
    message = problem(("models.fast.0.base_url", url))
    assert f'is "{shown}"; ' in message
    assert "hid" not in message


def test_a_user_in_a_base_url_is_sent_to_api_key() -> None:
    message = problem(("models.fast.0.base_url", "http://me@host/v1"))
    assert message.endswith("(leave out user and password; a key for the server belongs in api_key)")


@pytest.mark.parametrize("key", ["", "sk-1", "two words", "~!@#$%^&*()"])
def test_an_api_key_is_one_line_of_ascii(key: str) -> None:
    assert config(("models.fast.0.api_key", key)).models.fast[0].api_key.get_secret_value() == key


@pytest.mark.parametrize("key", ["a\nb", "a\r", "a\0", " a", "a ", "ключ", 12345, 1.5, True])
def test_a_wrong_api_key_is_refused_and_not_shown(key: object) -> None:
    message = problem(("models.fast.0.api_key", key))
    assert 'models.fast[0].api_key (endpoint "small") is "***"; it must be one line of ASCII text' in message
    assert message.endswith(" (write it in quotes)") == (not isinstance(key, str))


@pytest.mark.parametrize("name", ["a", "org/model:8b", "ünïcode", "with space", "env", " "])
def test_an_endpoint_may_have_any_name_that_can_be_printed(name: str) -> None:
    assert config(("models.fast.0.name", name)).models.fast[0].name == name


@pytest.mark.parametrize(("name", "shown"), [("", '""'), ("a\nb", '"a\\nb"'), ("\x1b[31m", '"\\u001b[31m"')])
def test_an_endpoint_may_not_have_an_empty_name_or_control_characters_in_it(name: str, shown: str) -> None:
    assert problem(("models.fast.0.name", name)) == (
        f"models.fast[0].name is {shown}; it must be text that is not empty and has no control characters"
    )


@pytest.mark.parametrize("path", ["/models", "/", "/health?deep=1", "/a%20b"])
def test_a_probe_path_begins_with_a_slash(path: str) -> None:
    assert config(("health.path", path)).health.path == path


@pytest.mark.parametrize("path", ["", "models", "/a b", "/a#b", "/a\r\nX: y", "/ü"])
def test_a_wrong_probe_path_is_refused(path: str) -> None:
    assert problem(("health.path", path)).endswith("it must be a path that begins with / and has no spaces")


@pytest.mark.parametrize("value", [0.1, 0.999])
def test_servers_are_not_asked_for_their_load_more_than_once_a_second(value: float) -> None:
    assert "0 (off) or a number from 1 to 3600 (servers" in problem(("health.load_interval_seconds", value))


def test_the_text_of_a_certificate_is_not_its_path_and_is_not_shown() -> None:
    pem = "-----BEGIN PRIVATE KEY-----\nhidden\n-----END PRIVATE KEY-----"
    environ = {"KEY": pem}
    messages = problems_of(sample(("server.tls_cert", "env:KEY"), ("server.tls_key", "env:KEY")), environ)
    assert messages == tuple(
        f'server.{key} is "env:KEY"; its value must be the path of a PEM file, or empty '
        "(this is the text of a PEM file; write its path)"
        for key in ("tls_cert", "tls_key")
    )
    messages = problems_of(sample(("server.tls_cert", pem), ("server.tls_key", "a\nb")))
    assert [message.partition(";")[0] for message in messages] == [
        'server.tls_cert is "***"',
        'server.tls_key is "a\\nb"',
    ]


@pytest.mark.parametrize("value", ["off", "p95", 0.01, 1, 300.0])
def test_a_hedge_is_a_word_or_seconds(value: object) -> None:
    assert config(("recovery.hedge", value)).recovery.hedge == value


@pytest.mark.parametrize("value", ["on", "P95", "1.5", 0, 0.009, 301, True, [], math.nan])
def test_a_wrong_hedge_is_refused(value: object) -> None:
    assert 'it must be "off", "p95" or a number from 0.01 to 300' in problem(("recovery.hedge", value))


NO_URL = "it has a character that no URL has; in a password, write % and its code for it"
PORT = "its host or port is not valid; a port is a number from 1 to 65535"
DATABASE = "behind host and port only the number of a database is allowed"
SOCKET = "the path of a socket begins with a third slash"
REDIS_RULE = "it must be a URL such as redis://localhost:6379/0 (rediss:// with TLS, unix:///path), or empty"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://localhost",
        "redis://localhost/",
        "redis://10.0.0.7:6380/15",
        "redis://[::1]:6379/0",
        "rediss://user:p%40ss@redis.internal:6379/0?ssl_ca_certs=/etc/ca.pem",
        "redis://:secret@localhost:6379",
        "unix:///run/redis/redis.sock?db=1",
        "unix://:secret@/run/redis.sock",
    ],
)
def test_the_url_of_redis_may_be(url: str) -> None:
    assert config(("shared.redis_url", url)).shared.redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    ("url", "shown", "hint"),
    [
        ("localhost:6379", "localhost:6379", "put redis:// in front"),
        ("http://localhost:6379", "http://localhost:6379", ""),
        ("redis://", "redis://", "it has no host"),
        ("redis://:secret@", "redis://***@", "it has no host"),
        ("redis://a b", "redis://a b", NO_URL),
        ("redis://u:se#cret@host", "redis://***@host", NO_URL),
        ("redis://host:port", "redis://host:port", PORT),
        ("redis://host:0", "redis://host:0", PORT.replace("host or ", "")),
        ("redis://10.0.0.256", "redis://10.0.0.256", "its host is not valid"),
        ("redis://u:secret@host/cache", "redis://***@host/cache", DATABASE),
        ("unix://run/redis.sock", "unix://run/redis.sock", SOCKET),
        ("unix://", "unix://", SOCKET),
    ],
)
def test_the_url_of_redis_may_not_be_and_its_password_is_not_shown(url: str, shown: str, hint: str) -> None:
    assert (
        problem(("shared.redis_url", url))
        == f'shared.redis_url is "{shown}"; {REDIS_RULE}{hint and f" ({hint})"}'
    )
