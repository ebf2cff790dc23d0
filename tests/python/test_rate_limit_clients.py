"""Who a request comes from and which bucket it belongs to (contract rate_limiter, sections 5, 6, 9)."""

from __future__ import annotations

import pytest
from asgi_client import http_scope
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from peercore.ratelimit.clients import MAX_KEY_LENGTH, TrustedProxies, bounded_key, client_host, url_path


def forwarded(*fields: str, peer: str = "10.0.0.1") -> dict:
    headers = [(b"x-forwarded-for", field.encode("latin-1")) for field in fields]
    return http_scope(headers=headers, client=(peer, 1))


def test_client_is_the_peer_address():
    assert client_host(http_scope()) == "10.0.0.1"


def test_f25_clients_without_an_address_are_one_client():
    assert client_host(http_scope(client=None)) == "unknown"
    without = http_scope()
    del without["client"]
    assert client_host(without) == "unknown"


def test_f07_forwarded_header_of_a_stranger_is_ignored():
    scope = forwarded("1.2.3.4")
    assert TrustedProxies().client(scope) == "10.0.0.1"
    assert TrustedProxies(["192.0.2.1"]).client(scope) == "10.0.0.1"


def test_f07_right_most_untrusted_hop_behind_trusted_proxies():
    proxies = TrustedProxies(["10.0.0.0/8", "192.0.2.7"])
    assert proxies.client(forwarded("6.6.6.6, 203.0.113.5, 192.0.2.7, 10.1.1.1")) == "203.0.113.5"
    assert proxies.client(forwarded("6.6.6.6", "203.0.113.5", "10.1.1.1")) == "203.0.113.5", (
        "several fields are one list"
    )


def test_f07_random_values_give_no_fresh_identity():
    proxies = TrustedProxies("10.0.0.1")
    clients = {proxies.client(forwarded(f"{value}.example, 203.0.113.5")) for value in range(100)}
    assert clients == {"203.0.113.5"}
    assert {proxies.client(forwarded(f"made-up-{value}")) for value in range(100)} == {"10.0.0.1"}


def test_all_hops_trusted_gives_the_left_most():
    assert TrustedProxies("10.0.0.0/8").client(forwarded("10.0.0.9, 10.0.0.8")) == "10.0.0.9"


def test_trusted_proxy_without_the_header_is_itself_the_client():
    assert TrustedProxies("10.0.0.1").client(http_scope()) == "10.0.0.1"


@pytest.mark.parametrize(
    ("hop", "client"),
    [
        ("203.0.113.5:8080", "203.0.113.5"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ('"[2001:DB8:0::1]"', "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
    ],
)
def test_one_client_has_one_spelling(hop, client):
    assert TrustedProxies("10.0.0.1").client(forwarded(hop)) == client


def test_ipv6_peer_in_a_trusted_network():
    proxies = TrustedProxies(["2001:db8::/32"])
    assert proxies.client(forwarded("203.0.113.5", peer="2001:db8::9")) == "203.0.113.5"
    assert proxies.client(forwarded("203.0.113.5", peer="testclient")) == "testclient"


def test_decision_x_forwarded_for_default():
    assert TrustedProxies().client(forwarded("a, b")) == "10.0.0.1"


def test_decision_x_forwarded_for_v1_2():
    everybody = TrustedProxies("*")
    assert everybody.client(forwarded(" a , b")) == "a"
    assert everybody.client(forwarded("")) == "10.0.0.1"
    assert everybody.client(http_scope()) == "10.0.0.1"


@pytest.mark.parametrize(
    "value", ["," * 65536, "1.2.3.4, " * 8000, "\xff" * 65536, "\x00\r\n\x1b[31m", " ", "[", "[]:", '"']
)
def test_hostile_header_is_only_text(value):
    client = TrustedProxies("10.0.0.1").client(forwarded(value))
    assert client in ("10.0.0.1", "1.2.3.4")
    assert len(bounded_key(TrustedProxies("*").client(forwarded(value)))) <= MAX_KEY_LENGTH


def test_only_so_many_hops_are_looked_at():
    """Every hop trusted: the walk ends, instead of reading a list of any length."""
    chain = ", ".join(f"10.0.{n // 250}.{n % 250}" for n in range(1000))
    assert TrustedProxies("10.0.0.0/8").client(forwarded(chain)) == "10.0.3.218"


@pytest.mark.parametrize("proxies", ["nonsense", ["10.0.0.1", "10.0.0.0/33"], ""])
def test_bad_proxies_are_named(proxies):
    with pytest.raises(ValueError, match="trusted_proxies"):
        TrustedProxies(proxies)


@pytest.mark.parametrize("proxies", [7, [7], None])
def test_proxies_of_a_wrong_type(proxies):
    with pytest.raises(TypeError, match="trusted_proxies"):
        TrustedProxies(proxies)


def test_f10_long_keys_are_bounded_and_stay_different():
    short = "10.0.0.1:/" + "a" * (MAX_KEY_LENGTH - 10)
    assert bounded_key(short) == short
    keys = {bounded_key(f"10.0.0.1:/{'a' * 65536}{n}") for n in range(100)}
    assert len(keys) == 100
    assert all(len(key) <= MAX_KEY_LENGTH and key.startswith("10.0.0.1:/aaa") for key in keys)
    assert len(bounded_key("\udcff" * 65536)) <= MAX_KEY_LENGTH


def starlette_path(scope: dict) -> str:
    return Request(scope).url.path


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a/b",
        "/a//b",
        "//a",
        "/a?b",
        "/a#b",
        "/a\\b",
        "/a\tb\r\nc",
        "/\xfc\u2028\x00",
        "/a;b",
        "/%41",
        "*",
        "/\udcff",
    ],
)
@pytest.mark.parametrize("root_path", ["", "/root"])
def test_path_is_that_of_a_starlette_request(path, root_path):
    scope = http_scope(path, root_path=root_path)
    assert url_path(scope) == starlette_path(scope)


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=20), st.sampled_from(["", "/r", "/r/s"]))
def test_any_path_is_that_of_a_starlette_request(text, root_path):
    scope = http_scope(f"/{text}", root_path=root_path)
    assert url_path(scope) == starlette_path(scope)


def test_host_header_does_not_reach_the_path():
    assert url_path(http_scope("/a", root_path="/r", headers=[(b"host", b"evil/x?y")])) == url_path(
        http_scope("/a", root_path="/r")
    )
