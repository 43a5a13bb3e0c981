"""Every kind of password hash there is in htpasswd files, made by other programs."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from postoffice.crypt import load_crypt
from postoffice.interfaces import IPasswordHashes
from postoffice.services.hashes import PasswordHashes

PASSWORD = "sécret".encode()
SHA512 = (
    "$6$rounds=1000$saltstring$tVhWue.wOmqUM6.4jlJeO57XAWxYQbCfcmax23PefHVCliTPw3tCKE.8eXjnFsvxi59v"
    "VLVYXj.tckvGFlH.v0"
)
ARGON2ID = "jTiXaF8iZpdoYZIBxAItiA$4ZMOlr9yIA1kKjatmSX8tR6iGYI8O7nASgxM4YKQlno"
HASHES = {
    "DES-crypt": "ab3TLBXmeOVag",
    "MD5-crypt": "$1$saltsalt$JuLe1nEZL3b8Xr5YCXO7u1",
    "apr1": "$apr1$saltsalt$/hoxREkD6B2mAFK7t.IjI/",
    "bcrypt": "$2y$04$abcdefghijklmnopqrstuuxgaAVrATsv2cxAkEB3ENsaS.NPyRuGO",
    "SHA-256-crypt": "$5$rounds=1000$saltstring$IyQrPY9.9Cx4J2l34bZonR59i.QzoArsoYyy1zoZ203",
    "SHA-512-crypt": SHA512,
    "yescrypt": "$y$j75$saltsaltsaltsal.$PNlKlKqskA69KFh.Rg8PidVElYMeRQF0Fvw1gZegF1A",
    "argon2id": f"$argon2id$v=19$m=8,t=1,p=1${ARGON2ID}",
    "argon2i": "$argon2i$v=19$m=8,t=1,p=1$70wrglcWFX5aD+Y/FxOnxw$dClZzTiN9FscP9oelOL5eV/6CmXgJLOejgTwtv4AbiU",
    "argon2d": "$argon2d$v=19$m=8,t=1,p=1$/e3eTPo88afLqlhG+mheLg$+VwH4/wJ9UbPIyywhT/CWBgA+mhGMgPiiT/RFEpXMx0",
}
NONE_OF_THEM = (
    "",
    "*",
    "!",
    "!!",
    "x",
    "*0",
    "secret",
    "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "!" + SHA512,
    SHA512 + "\n",
    SHA512 + ":x",
    "$6$sältstring$" + "a" * 86,
    "$7$rounds=1000$saltstring$" + "a" * 86,
    "$2y$04$tooshort",
    "$argon2id$v=19$m=8,t=1,p=1",
    "$apr1$saltsalt$",
    "\N{REPLACEMENT CHARACTER}" * 13,
)
FAR_TOO_MUCH = (
    "$2y$31$abcdefghijklmnopqrstuuxgaAVrATsv2cxAkEB3ENsaS.NPyRuGO",
    "$6$rounds=999999999$saltstring$" + "a" * 86,
    "$argon2id$v=19$m=99999999,t=1,p=1$" + ARGON2ID,
    "$argon2id$v=19$m=8,t=9999,p=1$" + ARGON2ID,
)


class Hashes(SynchronousTestCase):
    def setUp(self) -> None:
        self.hashes = PasswordHashes()

    def test_provides_the_interface(self) -> None:
        self.assertTrue(verifyObject(IPasswordHashes, self.hashes))

    def test_each_kind(self) -> None:
        for kind, stored in HASHES.items():
            self.assertTrue(self.hashes.usable(stored), kind)
            self.assertTrue(self.hashes.verify(stored, PASSWORD), kind)
            for wrong in (b"", b"secret", PASSWORD[:-1], stored.encode(), b"\xff" * 255):
                self.assertFalse(self.hashes.verify(stored, wrong), (kind, wrong))

    def test_damaged_ones_fit_nothing(self) -> None:
        for kind, stored in HASHES.items():
            damaged = stored[:-2] + ("Ab" if stored[-2:] != "Ab" else "Cd")
            self.assertFalse(self.hashes.verify(damaged, PASSWORD), kind)

    def test_new_ones(self) -> None:
        one, other = self.hashes.make(PASSWORD), self.hashes.make(PASSWORD)
        self.assertNotEqual(one, other)
        self.assertTrue(one.startswith("$argon2id$"))
        self.assertTrue(self.hashes.usable(one))
        self.assertTrue(self.hashes.verify(one, PASSWORD))
        self.assertFalse(self.hashes.verify(one, PASSWORD[:-1]))

    def test_C2_what_is_no_hash_fits_nothing(self) -> None:
        for stored in NONE_OF_THEM:
            self.assertFalse(self.hashes.usable(stored), stored)
            for password in (b"", stored.encode("utf-8"), PASSWORD):
                self.assertFalse(self.hashes.verify(stored, password), stored)

    def test_what_would_take_far_too_long(self) -> None:
        for stored in FAR_TOO_MUCH:
            self.assertFalse(self.hashes.usable(stored), stored)

    def test_long_passwords_are_none_of_our_business(self) -> None:
        """bcrypt looks at 72 octets; what is longer is as right as it ever was."""
        stored = load_crypt()(b"p" * 72, "$2y$04$abcdefghijklmnopqrstuu")
        self.assertTrue(self.hashes.verify(stored, b"p" * 100))
