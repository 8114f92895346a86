"""What may be asked of GET /admin/recent."""

import pytest

from octoroute.errors import InvalidRequest
from octoroute.observe.recent import Wanted
from octoroute.server.recent import read_query


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", Wanted()),
        ("limit=1", Wanted(limit=1)),
        ("limit=1000&tier=deep", Wanted(limit=1000, tier="deep")),
        ("tier=none", Wanted(tier="")),
        ("outcome=client_gone&status=499", Wanted(outcome="client_gone", status=499)),
        ("status=0", Wanted(status=0)),
        ("tenant=team%20a", Wanted(tenant="team a")),
        ("tenant=", Wanted(tenant="")),
    ],
)
def test_a_query_says_which_requests_are_wanted(query: str, wanted: Wanted) -> None:
    assert read_query(query) == wanted


@pytest.mark.parametrize(
    ("query", "param", "says"),
    [
        ("limit=0", "limit", "limit is '0'; allowed: a whole number from 1 to 1000"),
        ("limit=1001", "limit", "a whole number from 1 to 1000"),
        ("limit=", "limit", "limit is ''"),
        ("limit=-1", "limit", "limit is '-1'"),
        ("limit=%D9%A3", "limit", "allowed: a whole number"),
        ("limit=1&limit=2", "limit", "the query has limit twice"),
        ("tier=slow", "tier", "tier is 'slow'; allowed: fast, balanced, deep, none"),
        ("outcome=bad", "outcome", "allowed: ok, client_error, limited, error, broken, client_gone"),
        ("status=600", "status", "a whole number from 0 to 599"),
        ("limits=1", "limits", "known here are: limit, tier, outcome, status, tenant"),
        ("x", "x", "the query has 'x'"),
    ],
)
def test_what_can_not_be_asked_is_said(query: str, param: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_query(query)
    assert says in caught.value.message
    assert caught.value.param == param
