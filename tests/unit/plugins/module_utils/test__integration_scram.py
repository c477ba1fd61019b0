# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_scram import (
    Scram,
    ScramError,
    prepared,
)

# The example of RFC 7677, section 3.
NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = f"{NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CHALLENGE = f"r={SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
PROOF = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SIGNATURE = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def begun():
    return Scram("pencil", NONCE, "user")


def test_the_example_of_the_rfc():
    scram = begun()
    assert scram.first() == f"n,,n=user,r={NONCE}".encode()
    assert scram.final(CHALLENGE) == f"c=biws,r={SERVER_NONCE},p={PROOF}".encode()
    scram.verify(SIGNATURE)


@pytest.mark.parametrize(
    ("challenge", "said"),
    [
        (CHALLENGE.replace(b"r=rOpr", b"r=sOpr"), "its nonce is not made from ours"),
        (f"r={NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode(), "its nonce is not made"),
        (CHALLENGE.replace(b"s=W22Z", b"s=W!2Z"), "salt or iteration count can't be read"),
        (CHALLENGE.replace(b"i=4096", b"i=many"), "salt or iteration count can't be read"),
        (CHALLENGE.replace(b"i=4096", b"i=0"), "it wants 0 iterations"),
        (CHALLENGE.replace(b"i=4096", b"i=99999999"), "it wants 99999999 iterations"),
        (b"", "its nonce is not made from ours"),
    ],
)
def test_a_challenge_that_is_none(challenge, said):
    with pytest.raises(ScramError, match=said):
        begun().final(challenge)


@pytest.mark.parametrize(
    ("final", "said"),
    [
        (SIGNATURE.replace(b"v=6", b"v=7"), "its signature is wrong"),
        (b"e=other-error", "it gives no signature"),
        (b"v=x", "its signature can't be read"),
        (b"v=", "its signature is wrong"),
    ],
)
def test_a_signature_that_is_none(final, said):
    scram = begun()
    scram.final(CHALLENGE)
    with pytest.raises(ScramError, match=said):
        scram.verify(final)


def test_a_signature_before_the_challenge_proves_nothing():
    with pytest.raises(ScramError, match="its signature is wrong"):
        begun().verify(b"v=")


@pytest.mark.parametrize(
    ("password", "form"),
    [
        ("pencil", "pencil"),
        ("I\u00adX", "IX"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\u0007\u00e9", "\u0007\u00e9"),
        ("\u06271", "\u06271"),
        ("stra\u00dfe", "stra\u00dfe"),
    ],
)
def test_passwords_beyond_ascii(password, form):
    assert prepared(password) == form
