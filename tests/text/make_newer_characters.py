"""Writes core/text/newer_characters.inc: the characters that Oniguruma 6.9.10 (Unicode 16, the regular
expressions of PyPI tokenizers 0.22) knows and PCRE2 10.42 (Unicode 14) does not, each with an older
character of the same category and UTF-8 length that stands in for it.

    python tests/text/make_newer_characters.py > core/text/newer_characters.inc

Needs Python 3.11, whose unicodedata is Unicode 14, and tokenizers 0.22.
"""

import unicodedata

from tokenizers import Regex, pre_tokenizers

# category -> (stand-in of three UTF-8 bytes, stand-in of four)
STAND_INS = {
    "Lu": (0x1E00, 0x10400), "Ll": (0x1E01, 0x10428), "Lm": (0x1D2C, 0x16F93),
    "Lo": (0x0E01, 0x10000), "Mn": (0x1AB0, 0x101FD), "Mc": (0x0903, 0x11000),
    "Nd": (0x0E50, 0x104A0), "Nl": (0x2160, 0x10140), "No": (0x2070, 0x10107),
    "Po": (0x2016, 0x10100), "Pd": (0x2010, 0x10EAD), "Sm": (0x2044, 0x1D6C1),
    "Sc": (0x20A0, 0x1E2FF), "Sk": (0x1FBD, 0x1F3FB), "So": (0x2100, 0x10137),
    "Cf": (0x2060, 0x110BD), "Han": (0x4E00, 0x20000),
}


def members(pattern, text):
    """The characters of `text` that `pattern` matches."""
    pieces = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(text)
    rest = {character for piece, _ in pieces for character in piece}
    return {character for character in text if character not in rest}


def main():
    assert unicodedata.unidata_version.startswith("14."), unicodedata.unidata_version
    unknown = "".join(
        chr(c) for c in range(0x110000)
        if unicodedata.category(chr(c)) == "Cn" and not 0xD800 <= c < 0xE000
    )
    newer = "".join(sorted(set(unknown) - members(r"\p{Cn}", unknown)))
    category = {}
    for name in STAND_INS:
        for character in members(r"\p{%s}" % name, newer):
            category[character] = name
    missing = set(newer) - set(category)
    assert not missing, [hex(ord(c)) for c in missing]
    ranges = []
    for character in newer:
        code, name = ord(character), category[character]
        stand_in = STAND_INS[name][code >= 0x10000]
        assert len(chr(stand_in).encode()) == len(character.encode())
        if ranges and ranges[-1][1] == code - 1 and ranges[-1][2] == stand_in:
            ranges[-1][1] = code
        else:
            ranges.append([code, code, stand_in])
    print("// Written by tests/text/make_newer_characters.py; first, last, stand-in.")
    for first, last, stand_in in ranges:
        print("{0x%X, 0x%X, 0x%X}," % (first, last, stand_in))


if __name__ == "__main__":
    main()
