"""Passwords: what is taken, and that hashing holds up nothing else."""

import asyncio
import time

import pytest
from argon2 import PasswordHasher

from terrace import settings
from terrace.accounts.passwords import WAITING, Passwords
from terrace.errors import Internal, Invalid, Unavailable

GOOD = "plum-orbit-candle-41"


@pytest.fixture
async def warm(passwords: Passwords) -> Passwords:
    await passwords.hash(GOOD)
    return passwords


async def test_what_was_hashed_is_verified_and_nothing_else(passwords: Passwords) -> None:
    one, another = await passwords.hash(GOOD), await passwords.hash(GOOD)
    assert one != another
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify(GOOD, one)
    for wrong in ("", GOOD.upper(), GOOD + " ", GOOD + "\0", "\ud800", "x" * 10**6):
        assert not await passwords.verify(wrong, one)
    assert not await passwords.verify(GOOD, None)
    assert not passwords.needs_rehash(one)


async def test_a_hash_of_other_parameters_holds_and_is_told(passwords: Passwords) -> None:
    old = PasswordHasher(1, 8, 1).hash(GOOD)
    assert await passwords.verify(GOOD, old)
    assert passwords.needs_rehash(old)


async def test_a_damaged_hash_is_no_wrong_password(passwords: Passwords) -> None:
    with pytest.raises(Internal):
        await passwords.verify(GOOD, "$argon2id$nonsense")


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("", "password_short"),
        ("seven77", "password_short"),
        ("x" * 1025, "password_long"),
        ("\ud800" * 9, "password_characters"),
        ("password", "password_common"),
        ("PassWord1", "password_common"),
        ("1234567890", "password_common"),
        ("ｐａｓｓｗｏｒｄ", "password_common"),
        ("aaaaaaaaaaaaaaaa", "password_common"),
        ("ababababababab", "password_common"),
        ("Ada Lovelace", "password_common"),
        ("ADA.lovelace@example.org", "password_common"),
        ("ada.lovelace", "password_common"),
    ],
)
async def test_what_is_no_password_is_told(passwords: Passwords, password: str, code: str) -> None:
    with pytest.raises(Invalid) as told:
        await passwords.hash(password, personal=("Ada Lovelace", "ada.lovelace@example.org"))
    assert told.value.code == code
    assert password not in told.value.message or password in ("", "password")


async def test_length_is_counted_in_characters_and_keyboards_agree(passwords: Passwords) -> None:
    hash = await passwords.hash("пароль-ё")  # eight characters, fifteen bytes
    assert await passwords.verify("пароль-е\u0308", hash)  # the same letter in two
    assert await passwords.hash("🌲🌊🔥🌙🍎🎲🎻🐝")
    longest = "".join(chr(0x4E00 + n) for n in range(1024))
    assert await passwords.verify(longest, await passwords.hash(longest))


async def test_the_shortest_is_a_setting() -> None:
    passwords = Passwords(settings.Accounts(password_min=20))
    with pytest.raises(Invalid):
        await passwords.hash(GOOD[:19])
    assert await passwords.hash(GOOD)
    passwords.close()


async def test_an_unknown_account_costs_what_a_known_one_does(warm: Passwords) -> None:
    known = await warm.hash(GOOD)

    async def cost(hash: str | None) -> float:
        start = time.process_time()  # other programs add to how long it takes, for both alike
        assert not await warm.verify("not-this-one-77", hash)
        return time.process_time() - start

    costs = [(await cost(known), await cost(None)) for _ in range(9)]
    least = [min(each) for each in zip(*costs, strict=True)]
    assert 0.6 < least[1] / least[0] < 1.6


async def test_so_many_wait_and_no_more() -> None:
    passwords = Passwords(settings.Accounts(hashing=1))
    room = 1 + WAITING
    answers = await asyncio.gather(*(passwords.verify(GOOD, None) for _ in range(room + 5)), return_exceptions=True)
    refused = [each for each in answers if isinstance(each, Unavailable)]
    assert len(refused) == 5
    assert all(each.retry_after and each.code == "passwords_busy" for each in refused)
    assert await passwords.hash(GOOD)  # there is room again
    passwords.close()


async def test_who_goes_away_leaves_room_for_others() -> None:
    passwords = Passwords(settings.Accounts(hashing=1))
    for _ in range(3):
        tasks = [asyncio.create_task(passwords.verify(GOOD, None)) for _ in range(1 + WAITING)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert await passwords.verify(GOOD, await passwords.hash(GOOD))
    passwords.close()
    with pytest.raises(Unavailable):
        await passwords.verify(GOOD, None)


async def test_hashing_does_not_hold_up_the_event_loop() -> None:
    """Also not the first, which reads the lists of common passwords. On a busy machine other programs hold it up too;
    hashing on it would do so nearly always, and most of what is computed would be computed there."""
    passwords = Passwords(settings.Accounts())
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticker = asyncio.create_task(tick())
    here, everywhere = time.thread_time(), time.process_time()
    await asyncio.gather(*(passwords.hash(f"{GOOD}-{n}") for n in range(20)))
    here, everywhere = time.thread_time() - here, time.process_time() - everywhere
    ticker.cancel()
    passwords.close()
    assert ticks > 10, "on it there would be one"
    assert here < everywhere / 3
