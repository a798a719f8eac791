"""Names the known prompt-injection phrasings in a text; finding one is a hint, not a proof."""

import re

from graph.nfkc import nfkc

_OLD = "(?:previous|prior|above|preceding|earlier|foregoing|original|initial|system|your)"
_ORDERS = "(?:instructions?|prompts?|directions|directives?|guidelines|rules|commands)"
_MODEL = "(?:ai|llm|(?:large )?language model|ai (?:assistant|model)|chatbot)"
_SECRETS = "(?:conversation|chat history|system prompt|api keys?|credentials|passwords|secrets)"
_NOT = "(?:do not|don't|don’t|never)"

# Name: what every match holds one of, because looking for that is fast, and the pattern. Both see
# lower-case text with single spaces. Ordered by name, and so is the answer.
_PHRASES: dict[str, tuple[tuple[str, ...], str]] = {
    "addressed_to_model": (
        ("if you are a", "attention"),
        rf"\bif you are an? {_MODEL}\b|\battention,? {_MODEL}s?\b",
    ),
    "claimed_authority": (
        ("i am your",),
        r"\bi am your (?:developer|creator|administrator|admin|operator|owner)\b",
    ),
    "delimiter_forgery": (
        ("<|", "inst]", "sys>>", "system", "user_message", "untrusted", "user input"),
        r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id"
        r"|end_header_id|begin_of_text)\|>|\[/?inst\]|<</?sys>>"
        r"|</?(?:system|system_prompt|user_message|untrusted\w*)>"
        r"|\b(?:begin|end of|end) (?:the )?(?:system prompt|system message|untrusted \w+"
        r"|user input)\b",
    ),
    "encoded_instructions": (
        ("decode ",),
        r"\bdecode (?:this|the following|it)\b[^.]{0,60}? and (?:then )?"
        r"(?:follow|execute|obey|run)\b",
    ),
    "exfiltration": (
        ("send ", "post ", "upload ", "forward ", "exfiltrate "),
        rf"\b(?:send|post|upload|forward|exfiltrate) (?:the|this|all|your|any) (?:\w+ )?{_SECRETS}"
        r" to (?:https?:|www\.|[\w.+-]{1,64}@|this (?:url|address|server))",
    ),
    "forced_opening": (
        ("begin your", "start your"),
        r"\b(?:begin|start) your (?:answer|reply|response|message) with"
        r" [\"'“‘](?:sure|absolutely|of course|yes)\b",
    ),
    "forget_everything": (
        ("forget ", "disregard ", "ignore "),
        r"\b(?:forget|disregard|ignore) (?:everything|anything|all)(?: that)?"
        r" (?:above|before (?:this|that)|you (?:were|have been|know|learned)|you've been"
        r"|i (?:said|told you)|said (?:above|before|so far))\b",
    ),
    "hide_from_user": (
        (" the user ", " mention th", " reveal th", " disclose th"),
        rf"\b{_NOT} (?:(?:tell|inform|alert|notify) the user (?:about|of|that) (?:this|these|you)"
        r"|(?:mention|reveal|disclose) (?:this|these) (?:instructions?|messages?|prompts?))\b",
    ),
    "ignore_previous_instructions": (
        ("ignore ", "disregard ", "forget ", "bypass ", "override ", "neglect ", " follow"),
        r"\b(?:ignore|disregard|forget|bypass|override|neglect|do not follow|stop following)"
        r" (?:(?:all|any|every|of|the|my|our|these|those|and|or|other) ){0,5}"
        rf"(?:(?:{_OLD} (?:and |or )?){{1,3}}(?:\w+ )?{_ORDERS}"
        r"|(?<=all )(?:instructions|prompts)|(?<=any )(?:instructions|prompts))\b",
    ),
    "jailbreak_mode": (
        ("do anything now", "dan mode", "jailbreak", "god mode", "unrestricted", "unfiltered"),
        r"\bdo anything now\b|\bdan mode\b"
        r"|\b(?:enter|activate|enable|switch to) (?:\w+ )?(?:jailbreak|god|unrestricted"
        r"|unfiltered) mode\b",
    ),
    "new_instructions": (
        ("your new", "your real", "your actual", "your true", "your only", "system"),
        r"\byour (?:new|real|actual|true|only) (?:instructions?|task|goal|objective|orders?)"
        r" (?:is|are)\b|\bnew system (?:prompt|message|instructions?)\b|\bsystem override\b",
    ),
    "no_restrictions": (
        ("restrictions", "filter", "censorship", "guardrails", "limitations", "as if you ha"),
        r"\b(?:answer|respond|reply|act|behave) without (?:any )?(?:\w+ )?"
        r"(?:restrictions|filters?|censorship|guardrails|limitations)\b"
        r"|\bas if you (?:have|had) no (?:\w+ )?(?:restrictions|rules|guidelines|limits)\b",
    ),
    "reveal_system_prompt": (
        ("prompt", "instruction", " above"),
        r"\b(?:reveal|show|print|repeat|output|display|leak|dump|expose|tell me|give me"
        r"|what (?:is|are|was|were)) (?:me )?"
        r"(?:(?:your (?:\w+ )?(?:system|hidden|initial|original|secret)"
        r"|the (?:\w+ )?(?:system|hidden|secret)) (?:prompt|instructions?)"
        r"|(?:all )?(?:of )?(?:the )?(?:words|text|everything) above (?:starting|verbatim))\b",
    ),
    "role_override": (
        ("you are now", "you are no longer", "from now on", "pretend "),
        r"\byou are (?:now|no longer) (?:dan|an? (?:unrestricted|unfiltered|uncensored|jailbroken"
        r"|evil|hacked)|bound by|restricted|subject to|an ai)\b"
        r"|\bfrom now on,? you (?:are|will|must|should|shall) (?:act|behave|respond|answer|obey"
        r"|pretend|no longer|only|now)\b"
        r"|\bpretend (?:to be|(?:that )?you are|you're) an? (?:unrestricted|unfiltered|evil"
        r"|jailbroken|uncensored)\b",
    ),
}
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_PATTERNS = [
    (name, hints, re.compile(pattern)) for name, (hints, pattern) in sorted(_PHRASES.items())
]


def injection_phrases(text: str) -> list[str]:
    """The names of the known prompt-injection phrasings in `text`, ascending, each once.

    Sees through case, white space, compatibility forms (fullwidth letters) and invisible
    characters. A finding is a hint for warnings and the log, no proof: a document about
    injection is full of them.
    """
    plain = _INVISIBLE.sub("", nfkc(text))
    plain = " ".join(plain.lower().split())
    return [
        name
        for name, hints, pattern in _PATTERNS
        if any(hint in plain for hint in hints) and pattern.search(plain)
    ]
