"""Signatures as Standard Webhooks publishes them."""

from tests.webhooks.receiver import Received

from terrace.webhooks import signing


def test_the_published_example() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signature = signing.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_any_good_secret_verifies_and_no_other() -> None:
    old, new, other = (signing.new_secret() for _ in range(3))
    headers = signing.headers([new, old], "evt_1", 1_700_000_000, b"{}")
    received = Received(headers, b"{}")
    assert received.signed_by(new)
    assert received.signed_by(old)
    assert not received.signed_by(other)
    assert not Received(headers, b"{} ").signed_by(new)
    assert not Received({**headers, "webhook-timestamp": "1700000001"}, b"{}").signed_by(new)
    assert not Received({**headers, "webhook-id": "evt_2"}, b"{}").signed_by(new)


def test_secrets_are_long_and_never_twice_the_same() -> None:
    made = {signing.new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(each.startswith("whsec_") and len(each) == 6 + 44 for each in made)
