"""Text of others that a model shall read as data: documents, tables, what people wrote."""

import re
import unicodedata

_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\U000e0000-\U000e007f]"
)
_CONTROL_TOKEN = re.compile(
    r"<(?=\|)|(?<=\|)>|<(?=</?SYS>>)|<(?=/?(?:s|eos|bos|pad|unk|think|system|assistant|user|human|developer|tool\w*|"
    r"function\w*|documents?|passages?|context|instructions?|question|answer|start_of_turn|end_of_turn)\b[^<>]{0,80}>)",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"[\[【][ \t]*(/?INST|\d{1,3}(?:[ \t]*[,–-][ \t]*\d{1,3})*)[ \t]*[\]】]")
_ROLE = re.compile(r"(?im)^([\s>#*_]*(?:system|assistant|user|human|developer|ai|question|answer)[\s*_]*):")
_RULE = re.compile(
    r"(?m)^([\s>]*)([-=*#_~<\[]{3,})(?=.*\b(?:passages?|documents?|context|data|question|begin|start|end)\b)",
    re.IGNORECASE,
)


def neutral(text: str) -> str:
    """Retrieved text with everything broken that could pass for a delimiter, a role, a mark or a control token.

    Words stay; invisible characters go (text hidden in them would reach the model and nobody else).
    """
    visible = _INVISIBLE.sub(
        "", text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    )
    visible = "".join(char for char in visible if char in "\n\t" or unicodedata.category(char) != "Cc")
    broken = _CONTROL_TOKEN.sub(lambda match: "‹" if match.group() == "<" else "›", visible)
    broken = _BRACKETED.sub(r"(\1)", broken)
    broken = _ROLE.sub(r"\1 -", broken)
    return _RULE.sub(lambda match: match.group(1) + "·" * len(match.group(2)), broken)
