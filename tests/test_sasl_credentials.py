# What an application is given to judge: comparisons that work the same for everybody, and no secrets in a repr.
import hmac

import pytest

from trio_smtp._protocol.sasl import Credentials
from trio_smtp._protocol.sasl import credentials as module
from trio_smtp._protocol.sasl.cram import cram_md5_digest
from trio_smtp._protocol.sasl.credentials import CramDigest

CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"


def plain(password="s3cret"):
    return Credentials("PLAIN", "me", password=password)


def cram(password="s3cret"):
    return Credentials._create("CRAM-MD5", "me", CramDigest(CHALLENGE, cram_md5_digest(password, CHALLENGE)))


def test_the_digest_of_rfc_2195():
    assert cram_md5_digest("tanstaaftanstaaf", CHALLENGE) == b"b913a602c7eda7a495b4e6e7334d3890"


@pytest.mark.parametrize("make", [plain, cram])
def test_right_and_wrong(make):
    credentials = make()
    for wrong in ("", None, "s3cre", "s3cret ", "S3CRET", "\ud800"):
        assert credentials.check_password(wrong) is False
        assert not credentials.verified
    assert credentials.check_password("s3cret") is True
    assert credentials.verified
    assert credentials.check_password("other") is False
    assert credentials.verified  # once is enough


def test_prepared_forms_are_equal_and_what_has_none_stands_for_itself():
    assert plain("\u2168").check_password("I\u00adX")
    assert plain("pass😀").check_password("pass😀")
    assert not plain("pass😀").check_password("pass😁")
    assert plain("\u06271").check_password("\u06271")
    assert not plain("\u00ad").check_password("")
    assert not plain("\u00ad").check_password("\u00ad\u00ad")


@pytest.mark.parametrize("make", [plain, cram])
@pytest.mark.parametrize("expected", ["s3cret", "other", "", None, "a much longer password than the one that came"])
def test_the_same_work_for_everybody(make, expected, monkeypatch):
    credentials = make()
    digests, compared = [], []
    digest, compare = hmac.digest, hmac.compare_digest
    monkeypatch.setattr(hmac, "digest", lambda *args: digests.append(args[2]) or digest(*args))  # type: ignore[func-returns-value]
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or compare(a, b))  # type: ignore[func-returns-value]
    assert credentials.check_password(expected) is (expected == "s3cret")
    assert digests == (["sha256", "sha256"] if make is plain else ["md5"])
    assert compared == [(32, 32)]


def test_nobody_can_log_in_with_the_stand_in():
    assert not plain(module._NO_PASSWORD).check_password(None)
    assert not cram(module._NO_PASSWORD).check_password("")


def test_tokens_and_certificates_have_no_password():
    for credentials in (Credentials("XOAUTH2", "me", token="t"), Credentials("EXTERNAL", "me")):
        assert not credentials.check_password("t")
        assert not credentials.check_password(None)
        assert not credentials.needs_check


def test_only_a_check_can_verify_what_was_never_sent():
    assert cram().needs_check
    assert not plain().needs_check  # the application sees the password, and may keep hashes of its own


def test_repr_hides_secrets():
    for credentials in (plain(), cram(), Credentials("XOAUTH2", "me", token="s3cret")):
        assert "s3cret" not in repr(credentials)
        assert "me" in repr(credentials)
    acting = Credentials("PLAIN", "me", password="s3cret", authorization_id="boss")
    assert repr(acting) == "<Credentials PLAIN username='me', authorization_id='boss'>"
    with pytest.raises(TypeError):
        vars(acting)
